-- A request that has its user's slot asks for one of an account.
-- ARGV: lease, tiers "a,b;c", group: the names it may wait for, sorted, "a,b,c";
--   most that may wait (-1: this one may, however many do)
-- -> {1, account}; {0, position, waiting, loads} it waits; {-1, position, waiting,
--    loads} too many wait; {-2} fenced, or no such lease; {-3} none of them exists
local lease, tiers, most = ARGV[1], ARGV[2], tonumber(ARGV[4])
--@ alive get put moment choose
if not alive(lease) then return {-2} end
local r = get(lease)
if not r or r.s == 'u' or r.s == 'y' then return {-2} end
if r.s == 'A' or r.s == 'D' then return {1, r.a} end
local fields = {'!clock', '!shift', '!learn'}
for name in string.gmatch(tiers, '[^,;]+') do fields[#fields + 1] = 'a' .. name end
local limits = call('HMGET', P .. 'lim', unpack(fields))
local now = moment(limits[1], limits[2])
if r.s ~= 'a' then
  local best, known = choose(tiers, limits, 4, limits[3])
  if best then
    call('ZADD', P .. 'run:a' .. best, now, lease)
    r.s, r.a, r.t = 'A', best, ''
    put(lease, r)
    return {1, best}
  end
  if #known == 0 then return {-3} end
  --@ join part waits ending gates_of existing press placed
  local turn = r.t
  if turn == '' then turn = nil end
  r.s, r.g, r.t = 'a', existing(ARGV[3], known), ''
  put(lease, r)
  join(lease, r, turn, now)
  local waiting, gates = waits(r.u), gates_of(r.g)
  if most >= 0 and waiting > most and waiting > most + ending(gates) then
    local position, others, loads = placed(r, now)
    part(lease, r)
    r.s, r.g = 'U', ''
    put(lease, r)
    return {-1, position, others, loads}
  end
  if not limits[3] then press(gates) end
end
--@ placed
return {0, placed(r, now)}

-- A request that has its user's slot asks for one of an account.
-- ARGV: lease, tiers "a,b;c", group: the names it may wait for, sorted, "a,b,c";
--   most that may wait (-1: this one may, however many do)
-- -> {1, account, source} source: 1 = it was set aside for its node; {0, position, waiting, loads} it waits; {-1, position, waiting,
--    loads} too many wait; {-2} fenced, or no such lease; {-3} none of them exists
local lease, tiers, most = ARGV[1], ARGV[2], tonumber(ARGV[4])
--@ alive get put moment limits_of choose
if not alive(lease) then return {-2} end
local r = get(lease)
if not r or r.s == 'u' or r.s == 'y' then return {-2} end
if r.s == 'A' or r.s == 'D' then return {1, r.a, 0} end
local limits = limits_of(tiers)
local now = moment(limits[1], limits[2])
if r.s ~= 'a' then
  local best, known, from, asked = choose(tiers, limits, node_of(lease))
  if best then
    if from == 1 then
      --@ draw
      draw('a' .. best, node_of(lease))
    end
    call('ZADD', P .. 'run:a' .. best, now, lease)
    r.s, r.a, r.t = 'A', best, ''
    put(lease, r)
    return {1, best, from}
  end
  if #known == 0 then return {-3} end
  --@ join part waits ending gates_of existing press placed recall
  local turn = r.t
  if turn == '' then turn = nil end
  r.s, r.g, r.t = 'a', existing(ARGV[3], known), ''
  put(lease, r)
  join(lease, r, turn, now)
  local waiting, gates = waits(r.u), gates_of(r.g)
  local more = recall(asked, 0) -- its slot comes with the answer to that
  if most >= 0 and waiting > most and waiting > most + ending(gates) + more then
    local position, others, loads = placed(r, now)
    part(lease, r)
    r.s, r.g = 'U', ''
    put(lease, r)
    return {-1, position, others, loads}
  end
  if not limits[3] and #asked == 0 then press(gates) end
end
--@ placed
return {0, placed(r, now)}

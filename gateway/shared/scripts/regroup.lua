-- A waiter for accounts may take others than before, at its old position.
-- ARGV: lease, tiers, group
-- -> {1, account, source} it has one, {0, position, waiting, loads} it waits, {-2} fenced, or
--    no such lease, {-3} none of them exists: it waits no more
local lease, tiers = ARGV[1], ARGV[2]
--@ alive get put moment limits_of choose part
if not alive(lease) then return {-2} end
local r = get(lease)
if not r then return {-2} end
if r.s == 'A' or r.s == 'D' then return {1, r.a, 0} end
if r.s == 'u' or r.s == 'y' then return {-2} end
local limits = limits_of(tiers)
local now = moment(limits[1], limits[2])
if r.s == 'a' then r.t = part(lease, r) end
local best, known, from, asked = choose(tiers, limits, node_of(lease))
if best then
  if from == 1 then
    --@ draw
    draw('a' .. best, node_of(lease))
  end
  call('ZADD', P .. 'run:a' .. best, now, lease)
  r.s, r.a, r.g, r.t = 'A', best, '', ''
  put(lease, r)
  return {1, best, from}
end
if #known == 0 then
  r.s, r.g = 'U', ''
  put(lease, r)
  return {-3}
end
--@ existing join press gates_of placed recall
local turn = r.t
if turn == '' then turn = nil end
r.s, r.g, r.t = 'a', existing(ARGV[3], known), ''
put(lease, r)
join(lease, r, turn, now)
recall(asked, 0)
if not limits[3] and #asked == 0 then press(gates_of(r.g)) end
return {0, placed(r, now)}

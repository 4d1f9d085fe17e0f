-- What a node has, the first so many of it.
-- ARGV: node, most
-- -> {lease, state, user, account, age in us since its arrival, …}
--@ moment
local known = call('HMGET', P .. 'lim', '!clock', '!shift')
local now, found = moment(known[1], known[2]), {}
local all = call('HGETALL', P .. 'n:' .. ARGV[1])
for i = 1, math.min(#all, 2 * ARGV[2]), 2 do
  local s, u, a, n = string.match(all[i + 1], '^(.-)\1(.-)\1(.-)\1.-\1(.-)\1')
  for _, value in ipairs({all[i], s, u, a, math.max(0, now - n)}) do
    found[#found + 1] = value
  end
end
return found

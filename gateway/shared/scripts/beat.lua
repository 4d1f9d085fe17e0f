-- A node says that it lives; who has not said so for too long loses everything.
-- ARGV: node, ttl in us, how many leases it has, mode, gates…
--   mode: "" | "join" | "learn" (as join; into an empty engine: nothing is granted
--   before all nodes have said what they hold)
-- -> {nodes, rank, resync, us of learning left, {reaped…}, config, used, limit, …};
--    {-2} fenced. resync: 1 = the node's number of leases is not the engine's.
--    config: the hash of the newest config; limit: -1 = no such gate
local node, mode = ARGV[1], ARGV[4]
--@ whole
local t = call('TIME')
local raw = t[1] * 1000000 + t[2]
local known = call('HMGET', P .. 'lim', '!clock', '!shift', '!learn', '!config',
                   '!turn')
local last, shift, learn = tonumber(known[1]), tonumber(known[2] or 0), known[3]
if last and (raw < last or raw - last > GAP_US) then
  -- It stood still, or its clock leapt: no time has passed.
  shift = math.max(last + shift, tonumber(known[5] or 0)) - raw
  call('HSET', P .. 'lim', '!shift', whole(shift))
end
call('HSET', P .. 'lim', '!clock', whole(raw))
local now = raw + shift
if mode ~= '' then
  if mode == 'learn' and call('EXISTS', P .. 'nodes') == 0 then
    learn = whole(now + LEARN_US)
    call('HSET', P .. 'lim', '!learn', learn)
  end
  call('ZREM', P .. 'dead', node)
  call('ZADD', P .. 'names', 0, node) -- ranks in an order that does not change
elseif not call('ZSCORE', P .. 'nodes', node) then
  return {-2}
end
call('ZADD', P .. 'nodes', now + ARGV[2], node)
for _, gone in ipairs(call('ZRANGEBYSCORE', P .. 'nodes', '-inf', now)) do
  call('ZREM', P .. 'nodes', gone)
  call('ZREM', P .. 'names', gone)
  call('ZADD', P .. 'dead', now, gone)
end
local reaped, gates = {}, {}
local dead = call('ZRANGE', P .. 'dead', 0, 15)
if #dead > 0 then
  --@ bury
  local most = REAPED_AT_ONCE
  for _, gone in ipairs(dead) do
    most = bury(gone, most, gates)
    if most < 0 then break end
    call('ZREM', P .. 'dead', gone)
    reaped[#reaped + 1] = gone
  end
end
if learn and now >= tonumber(learn) then -- all have spoken: those who wait may go
  --@ touch
  call('HDEL', P .. 'lim', '!learn')
  learn = nil
  for _, gate in ipairs(call('HKEYS', P .. 'lim')) do
    if string.sub(gate, 1, 1) == 'a' then touch(gates, gate) end
  end
  for _, user in ipairs(call('SMEMBERS', P .. 'waiting')) do touch(gates, 'u' .. user) end
end
if #gates > 0 then
  --@ hand_on
  hand_on(gates)
end
local answer = {
  call('ZCARD', P .. 'nodes'),
  call('ZRANK', P .. 'names', node),
  call('HLEN', P .. 'n:' .. node) ~= tonumber(ARGV[3]) and 1 or 0,
  learn and math.max(1, learn - now) or 0,
  reaped,
  known[4] or '',
}
for i = 5, #ARGV do
  answer[#answer + 1] = call('ZCARD', P .. 'run:' .. ARGV[i])
  answer[#answer + 1] = tonumber(call('HGET', P .. 'lim', ARGV[i]) or -1)
end
return answer

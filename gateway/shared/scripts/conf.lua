-- The limits of a node's config: the newest of all nodes holds for all.
-- ARGV: node, hash of the config ("" = more parts follow), then gate and limit …
--   limit: slots, 0 = no limit, "-" = there is no such gate any more
-- -> 1; {-2} fenced
--@ touch hand_on recall
if not call('ZSCORE', P .. 'nodes', ARGV[1]) then return {-2} end
local gates = {}
for i = 3, #ARGV, 2 do
  local gate, limit = ARGV[i], ARGV[i + 1]
  if limit == '-' then
    call('HDEL', P .. 'lim', gate)
  elseif call('HGET', P .. 'lim', gate) ~= limit then
    call('HSET', P .. 'lim', gate, limit)
    touch(gates, gate)
    recall({gate}, 0) -- the parts are other ones
  end
end
if ARGV[2] ~= '' then call('HSET', P .. 'lim', '!config', ARGV[2]) end
hand_on(gates)
return 1

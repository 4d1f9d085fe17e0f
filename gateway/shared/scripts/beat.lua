-- A node says that it lives; who has not said so for too long loses everything.
-- ARGV: node, ttl in us, how many leases it has, mode, expected, place, gates…
--   mode: "" | "join" | "learn" (as join; into an empty engine, or a replica that took
--   over and may lack the last moment: nothing is granted before all nodes have said
--   what they hold)
--   expected: of a node that was here before: how many there were
--   place: which of several engines this is; "" where there is one
-- -> {nodes, rank, resync, us of learning left, {reaped…}, config,
--     used, limit, set aside, …}; {-2} fenced
--    resync: 1 = the node's number of leases is not the engine's. config: the hash of
--    the newest config; limit: -1 = no such gate; set aside: for this node
local node, mode = ARGV[1], ARGV[4]
--@ whole
local t = call('TIME')
local raw = t[1] * 1000000 + t[2]
local known = call('HMGET', P .. 'lim', '!clock', '!shift', '!learn', '!config',
                   '!turn', '!expect', '!late', '!place')
local last, shift, learn = tonumber(known[1]), tonumber(known[2] or 0), known[3]
if last and (raw < last or raw - last > GAP_US) then
  -- It stood still, or its clock leapt: no time has passed.
  shift = math.max(last + shift, tonumber(known[5] or 0)) - raw
  call('HSET', P .. 'lim', '!shift', whole(shift))
end
call('HSET', P .. 'lim', '!clock', whole(raw))
local now = raw + shift
if mode ~= '' then
  local place = ARGV[6]
  local moved = place ~= '' and known[8] and known[8] ~= place
  if place ~= '' then call('HSET', P .. 'lim', '!place', place) end
  if mode == 'learn' and (moved or call('EXISTS', P .. 'nodes') == 0) then
    learn = whole(now + LEARN_US)
    call('HSET', P .. 'lim', '!learn', learn)
  end
  if learn and ARGV[5] ~= '0' then
    call('SADD', P .. 'returned', node)
    if tonumber(known[6] or 0) < tonumber(ARGV[5]) then
      known[6] = ARGV[5]
      call('HSET', P .. 'lim', '!expect', ARGV[5])
    end
  end
  call('ZREM', P .. 'dead', node)
  if call('ZADD', P .. 'names', 0, node) == 1 then -- ranks in an order that stays
    call('PUBLISH', P .. 'all', 'N ') -- the others' parts are smaller now
  end
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
if learn and now >= tonumber(learn) then
  -- Who is expected and is silent for as long as a node that is dead, is dead.
  if not known[7] and call('SCARD', P .. 'spoken') < tonumber(known[6] or 0) then
    learn = whole(learn + math.max(0, ARGV[2] - LEARN_US))
    call('HSET', P .. 'lim', '!learn', learn, '!late', 1)
  end
  if now >= tonumber(learn) then
    --@ end_learning
    end_learning(gates)
    learn = nil
  end
end
if #gates > 0 then
  --@ hand_on
  hand_on(gates)
end
local nodes, rank = call('ZCARD', P .. 'nodes'), call('ZRANK', P .. 'names', node)
local answer = {
  nodes,
  rank,
  call('HLEN', P .. 'n:' .. node) ~= tonumber(ARGV[3]) and 1 or 0,
  learn and math.max(1, learn - now) or 0,
  reaped,
  known[4] or '',
}
if #ARGV > 6 then
  --@ set_aside recall
  local fields = {}
  for i = 7, #ARGV do
    fields[2 * i - 13], fields[2 * i - 12] = ARGV[i], '~' .. ARGV[i]
  end
  local known_of = call('HMGET', P .. 'lim', unpack(fields))
  for i = 7, #ARGV do
    local gate = ARGV[i]
    local aside = tonumber(known_of[2 * i - 12] or 0)
    local used = call('ZCARD', P .. 'run:' .. gate)
    local limit = tonumber(known_of[2 * i - 13] or -1)
    local spare = 0
    if aside > 0 then
      spare = tonumber(call('HGET', P .. 'spare:' .. gate, node) or 0)
    end
    local left = limit - used
    if limit > 0 and left > 0 and not learn and mode == '' then
      -- An equal part of what is left is set aside for each node, while none waits.
      local part = math.floor(left / nodes)
      if rank < left % nodes then part = part + 1 end
      local line = string.sub(gate, 1, 1) == 'a' and 'at:' or 'q:'
      if spare < part and call('EXISTS', P .. line .. string.sub(gate, 2)) == 0 then
        local free = left - aside
        if free > 0 then
          spare = math.min(part, spare + free)
          set_aside(gate, node, spare)
        else
          recall({gate}, math.ceil(left / nodes))
        end
      end
    end
    answer[#answer + 1] = used
    answer[#answer + 1] = limit
    answer[#answer + 1] = spare
  end
end
return answer

-- Functions that several scripts use. A script names those it needs in a line
-- "--@ name name"; they are put there with what they need themselves.
--
-- Every script has P (the prefix of all keys), call, SEP and GAP_US. Moments are
-- microseconds of the engine's time; a gate is "u" and a user or "a" and an account.

-- The engine's time. When its clock leaps, or it stood still, time stands still until
-- the next beat has taken up the leap (see beat.lua), but not before the last arrival.
local function moment(clock, shift)
  local t = call('TIME')
  local raw, moved = t[1] * 1000000 + t[2], tonumber(shift or 0)
  local last = tonumber(clock or raw)
  if raw < last or raw - last > GAP_US then
    return math.max(last + moved, tonumber(call('HGET', P .. 'lim', '!turn') or 0))
  end
  return raw + moved
end

-- As text that loses no digit.
local function whole(number)
  return string.format('%.0f', number)
end

-- A lease is "<node>.<number>".
local function node_of(lease)
  return string.match(lease, '^(.*)%.')
end

-- Whether the node may speak: one whose lease has ended has lost everything.
local function alive(lease)
  return call('ZSCORE', P .. 'nodes', node_of(lease))
end

-- What a lease is: s state, u user, a account, g group, n arrival, t turn kept for the
-- next wait. States: u waits for the user's slot, U has it, a waits for an account,
-- A has one, D drains, y and x stand aside from the line of u and a.
local function get(lease)
  local text = call('HGET', P .. 'n:' .. node_of(lease), lease)
  if not text then return nil end
  local s, u, a, g, n, t = string.match(text, '^(.-)\1(.-)\1(.-)\1(.-)\1(.-)\1(.*)$')
  return {s = s, u = u, a = a, g = g, n = n, t = t}
end

local function pack(r)
  return table.concat({r.s, r.u, r.a, r.g, r.n, r.t}, SEP)
end

local function put(lease, r)
  call('HSET', P .. 'n:' .. node_of(lease), lease, pack(r))
end

-- Slots left at a gate, and how many are set aside; nil where there is no such gate.
-- What is set aside for a node is what it may use without the engine, beyond what it
-- has then: so all nodes together have no more than the limit, whenever that happens.
-- Other nodes get such a slot only after its node has given it back.
local function room(gate)
  local known = call('HMGET', P .. 'lim', gate, '~' .. gate)
  local limit = tonumber(known[1])
  if not limit then return nil end
  if limit == 0 then return 1, 0 end
  return limit - call('ZCARD', P .. 'run:' .. gate), tonumber(known[2] or 0)
end

-- Whether a node may have a slot of a gate where so many are left and set aside: 0 one
-- that is set aside for none, 1 one of its own; nil: all are set aside for others.
local function source(gate, node, left, aside)
  if left > aside then return 0 end
  if aside > 0 and call('HEXISTS', P .. 'spare:' .. gate, node) == 1 then return 1 end
  return nil
end

-- Set so many slots of a gate aside for a node, instead of what was before.
local function set_aside(gate, node, count)
  local key, total = P .. 'spare:' .. gate, '~' .. gate
  local change = count - tonumber(call('HGET', key, node) or 0)
  if count > 0 then
    call('HSET', key, node, count)
    call('SADD', P .. 'spares:' .. node, gate)
  else
    call('HDEL', key, node)
    call('SREM', P .. 'spares:' .. node, gate)
  end
  if call('HINCRBY', P .. 'lim', total, change) == 0 then
    call('HDEL', P .. 'lim', total)
  end
end

-- A node has taken one of its own.
local function draw(gate, node)
  if call('HINCRBY', P .. 'spare:' .. gate, node, -1) == 0 then
    set_aside(gate, node, 0)
  end
  if call('HINCRBY', P .. 'lim', '~' .. gate, -1) == 0 then
    call('HDEL', P .. 'lim', '~' .. gate)
  end
end

-- Ask for what is set aside at these gates, from nodes that have more than so many;
-- they keep these. How many slots are set aside there.
local function recall(gates, most)
  local sum = 0
  for _, gate in ipairs(gates) do
    local spares = call('HGETALL', P .. 'spare:' .. gate)
    for i = 1, #spares, 2 do
      sum = sum + spares[i + 1]
      if tonumber(spares[i + 1]) > most then
        call('PUBLISH', P .. spares[i], 'G ' .. most .. ' ' .. gate)
      end
    end
  end
  return sum
end

-- Each turn is greater than all before; after a loss of state, too.
local function next_turn(now)
  local turn = math.max(now, tonumber(call('HGET', P .. 'lim', '!turn') or 0) + 1)
  call('HSET', P .. 'lim', '!turn', whole(turn))
  return turn
end

-- Publish to the lease's node; 0 if it does not listen.
local function tell(lease, text)
  return call('PUBLISH', P .. node_of(lease), text)
end

-- How many of a user wait, in both lines.
local function waits(user)
  return call('ZCARD', P .. 'q:' .. user) + call('ZCARD', P .. 'w:' .. user)
end

-- One of the user's waiters has left a line.
local function waits_no_more(user)
  if call('EXISTS', P .. 'q:' .. user, P .. 'w:' .. user) == 0 then
    call('SREM', P .. 'waiting', user)
  end
end

-- The line for a user's slots.
local function join_user(lease, r, now)
  next_turn(now)
  call('ZADD', P .. 'q:' .. r.u, r.n, lease)
  call('SADD', P .. 'waiting', r.u)
end

local function part_user(lease, r)
  call('ZREM', P .. 'q:' .. r.u, lease)
  waits_no_more(r.u)
end

-- The line for accounts. A group is the names that a waiter fits; a lane is one user's
-- waiters in a group; a ring is the users of a group by their last turn.
local function join(lease, r, turn, now)
  local lane, ring = P .. 'lane:' .. r.g .. SEP .. r.u, P .. 'ring:' .. r.g
  call('ZADD', lane, r.n, lease)
  call('ZADD', P .. 'w:' .. r.u, r.n, lease)
  call('SADD', P .. 'waiting', r.u)
  call('ZADD', P .. 'deep:' .. r.g, call('ZCARD', lane), r.u)
  if call('ZADD', ring, 'NX', turn or next_turn(now), r.u) == 1
     and call('ZCARD', ring) == 1 then
    for name in string.gmatch(r.g, '[^,]+') do
      call('SADD', P .. 'at:' .. name, r.g)
    end
  end
end

-- Leave it; the user's last turn.
local function part(lease, r)
  local lane, ring = P .. 'lane:' .. r.g .. SEP .. r.u, P .. 'ring:' .. r.g
  local turn = call('ZSCORE', ring, r.u)
  call('ZREM', lane, lease)
  call('ZREM', P .. 'w:' .. r.u, lease)
  waits_no_more(r.u)
  local left = call('ZCARD', lane)
  if left > 0 then
    call('ZADD', P .. 'deep:' .. r.g, left, r.u)
    return turn
  end
  call('ZREM', P .. 'deep:' .. r.g, r.u)
  call('ZREM', ring, r.u)
  if call('EXISTS', ring) == 0 then
    for name in string.gmatch(r.g, '[^,]+') do
      call('SREM', P .. 'at:' .. name, r.g)
    end
  end
  return turn
end

-- Who gets the next slot of an account: the user whose last turn there is the longest
-- ago, and of that user's waiters that fit the one that arrived first.
local function next_at(name)
  local groups = call('SMEMBERS', P .. 'at:' .. name)
  local least, user
  for _, g in ipairs(groups) do
    local head = call('ZRANGE', P .. 'ring:' .. g, 0, 0, 'WITHSCORES')
    local turn = tonumber(head[2])
    if turn and (not least or turn < least) then least, user = turn, head[1] end
  end
  if not user then return nil end
  local first, lease, group
  for _, g in ipairs(groups) do
    local head = call('ZRANGE', P .. 'lane:' .. g .. SEP .. user, 0, 0, 'WITHSCORES')
    local arrival = tonumber(head[2])
    if arrival and (not first or arrival < first) then
      first, lease, group = arrival, head[1], g
    end
  end
  return lease, user, groups, group
end

-- Every name that fits a waiter that this name fits, and the groups of them.
local function reach(name)
  local names, groups = {}, {}
  for _, g in ipairs(call('SMEMBERS', P .. 'at:' .. name)) do
    for other in string.gmatch(g, '[^,]+') do names[other] = true end
  end
  for other in pairs(names) do
    for _, g in ipairs(call('SMEMBERS', P .. 'at:' .. other)) do groups[g] = true end
  end
  return names, groups
end

-- Whether more wait at a gate than slots are about to be free by eviction.
local function needed(gate)
  local kind, name = string.sub(gate, 1, 1), string.sub(gate, 2)
  if kind == 'u' then
    return call('ZCARD', P .. 'q:' .. name) > call('ZCARD', P .. 'gone:' .. gate)
  end
  local names, groups = reach(name)
  local free, waiting = 0, 0
  for other in pairs(names) do free = free + call('ZCARD', P .. 'gone:a' .. other) end
  for g in pairs(groups) do
    for _, user in ipairs(call('ZRANGE', P .. 'ring:' .. g, 0, free)) do
      waiting = waiting + call('ZCARD', P .. 'lane:' .. g .. SEP .. user)
      if waiting > free then return true end
    end
  end
  return false
end

-- Of the leases that drain at these gates, the one that has for the longest is asked
-- to end, if its slot is needed. One that cannot hear it is passed over.
local function press(gates)
  local drains = {}
  for _, gate in ipairs(gates) do
    local oldest = call('ZRANGE', P .. 'drain:' .. gate, 0, 15, 'WITHSCORES')
    if oldest[1] and needed(gate) then
      for i = 1, #oldest, 2 do
        drains[#drains + 1] = {oldest[i], tonumber(oldest[i + 1]), gate}
      end
    end
  end
  table.sort(drains, function(one, other)
    return one[2] < other[2] or one[2] == other[2] and one[1] < other[1]
  end)
  for _, drain in ipairs(drains) do
    local lease, since, gate = drain[1], drain[2], drain[3]
    if tell(lease, 'E ' .. lease) > 0 then
      call('ZREM', P .. 'drain:' .. gate, lease)
      call('ZADD', P .. 'gone:' .. gate, since, lease)
      if call('EXISTS', P .. 'drain:' .. gate) == 0 then
        call('SREM', P .. 'drains', gate)
      end
      return
    end
  end
end

-- The same at every gate of a kind where a lease drains.
local function press_all(kind)
  local gates = {}
  for _, gate in ipairs(call('SMEMBERS', P .. 'drains')) do
    if string.sub(gate, 1, 1) == kind then gates[#gates + 1] = gate end
  end
  press(gates)
end

local function touch(gates, gate)
  if not gates[gate] then
    gates[gate] = true
    gates[#gates + 1] = gate
  end
end

-- A slot is given back; a drain's may be what another drain is waited for.
local function give(gates, lease, r, gate)
  call('ZREM', P .. 'run:' .. gate, lease)
  touch(gates, gate)
  if r.s == 'D' then
    call('ZREM', P .. 'gone:' .. gate, lease)
    if call('ZREM', P .. 'drain:' .. gate, lease) == 1
       and call('EXISTS', P .. 'drain:' .. gate) == 0 then
      call('SREM', P .. 'drains', gate)
    end
    gates.drained = true
  end
end

-- Take everything from a lease; the gates where that may have freed a slot.
local function drop(lease, r, gates)
  if r.s == 'u' then
    part_user(lease, r)
  elseif r.s == 'a' then
    r.t = part(lease, r)
  end
  if r.a ~= '' then give(gates, lease, r, 'a' .. r.a) end
  if r.s ~= 'u' and r.s ~= 'y' then give(gates, lease, r, 'u' .. r.u) end
  call('HDEL', P .. 'n:' .. node_of(lease), lease)
end

-- Nothing is set aside for a node any more.
local function end_spares(node, gates)
  for _, gate in ipairs(call('SMEMBERS', P .. 'spares:' .. node)) do
    set_aside(gate, node, 0)
    touch(gates, gate)
  end
end

-- Returns whether a slot is set aside that the next one must wait for.
local function grant_account(name, now)
  local left, aside = room('a' .. name)
  while left and left > 0 do
    local lease, user, groups, group = next_at(name)
    if not lease then break end
    local r, node = get(lease), node_of(lease)
    local from = source('a' .. name, node, left, aside)
    if r and not from then
      recall({'a' .. name}, 0)
      return true
    end
    local turn = part(lease, r or {u = user, g = group})
    if r then r.t = turn end
    if not r then
      left, aside = room('a' .. name) -- a trace of what is gone
    elseif tell(lease, (from == 1 and 'a ' or 'A ') .. lease .. ' ' .. name) == 0 then
      r.s = 'x' -- its node does not listen: it stands aside until RESYNC
      put(lease, r)
    else
      if from == 1 then draw('a' .. name, node) end
      turn = next_turn(now)
      for _, g in ipairs(groups) do
        call('ZADD', P .. 'ring:' .. g, 'XX', turn, user)
      end
      call('ZADD', P .. 'run:a' .. name, now, lease)
      r.s, r.a, r.g, r.t = 'A', name, '', ''
      put(lease, r)
      left, aside = room('a' .. name)
    end
  end
end

local function grant_user(user, now)
  local left, aside = room('u' .. user)
  while left and left > 0 do
    local lease = call('ZRANGE', P .. 'q:' .. user, 0, 0)[1]
    if not lease then break end
    local r, node = get(lease), node_of(lease)
    local from = source('u' .. user, node, left, aside)
    if r and not from then
      recall({'u' .. user}, 0)
      return true
    end
    part_user(lease, r or {u = user})
    local news = from == 1 and 'u ' .. lease .. ' ' .. user or 'U ' .. lease
    if r and tell(lease, news) == 0 then
      r.s = 'y'
      put(lease, r)
    elseif r then
      if from == 1 then draw('u' .. user, node) end
      call('ZADD', P .. 'run:u' .. user, now, lease)
      r.s = 'U'
      put(lease, r)
      left, aside = room('u' .. user)
    end
  end
end

-- Give what is free at these gates to those who wait, then end drains for the others.
local function hand_on(gates)
  if #gates == 0 or call('EXISTS', P .. 'waiting') == 0 then return end
  local known = call('HMGET', P .. 'lim', '!clock', '!shift', '!learn')
  if known[3] then return end -- nothing is granted before all have said what they hold
  local now = moment(known[1], known[2])
  for _, gate in ipairs(gates) do
    local kind, name = string.sub(gate, 1, 1), string.sub(gate, 2)
    local grant = kind == 'a' and grant_account or grant_user
    if not grant(name, now) and call('EXISTS', P .. 'drain:' .. gate) == 1 then
      press({gate})
    end
  end
  if gates.drained then
    press_all('a')
    press_all('u')
  end
end

-- How many slots at these gates drain, or their holders were asked to go.
local function ending(gates)
  local sum = 0
  for _, gate in ipairs(gates) do
    sum = sum + call('ZCARD', P .. 'drain:' .. gate) + call('ZCARD', P .. 'gone:' .. gate)
  end
  return sum
end

local function gates_of(group)
  local gates = {}
  for name in string.gmatch(group, '[^,]+') do gates[#gates + 1] = 'a' .. name end
  return gates
end

-- A gate's name, limit, slots in use, how many of them are about to be free, and the
-- ages of the others: of 64 of them where there are many.
local function load_of(gate, now)
  local run, drain, gone = P .. 'run:' .. gate, P .. 'drain:' .. gate, P .. 'gone:' .. gate
  local used, about = call('ZCARD', run), ending({gate})
  local found = {gate, tonumber(call('HGET', P .. 'lim', gate) or 0), used, about}
  if used <= 128 then
    local held = call('ZRANGE', run, 0, -1, 'WITHSCORES')
    for i = 1, #held, 2 do
      if about == 0 or not (call('ZSCORE', drain, held[i])
                            or call('ZSCORE', gone, held[i])) then
        found[#found + 1] = math.max(0, now - held[i + 1])
      end
    end
  else
    for i = 0, 63 do
      local rank = math.floor(i * used / 64)
      local held = call('ZRANGE', run, rank, rank, 'WITHSCORES')
      found[#found + 1] = math.max(0, now - held[2])
    end
  end
  return found
end

-- How many waiters of other users in a group come before one whose user has *rounds*
-- waiters before it (policy.FitGroup.ahead); *seen* remembers what was counted.
local function ahead(g, user, rounds, turn, seen)
  local deep, ring = P .. 'deep:' .. g, P .. 'ring:' .. g
  local counts = seen[g] or {sum = {[0] = 0}}
  seen[g] = counts
  local function above(k) -- users with more than k waiters
    counts[k] = counts[k] or call('ZCOUNT', deep, '(' .. k, '+inf')
    return counts[k]
  end
  local deepest = tonumber(call('ZRANGE', deep, -1, -1, 'WITHSCORES')[2] or 0)
  for k = #counts.sum, math.min(rounds, deepest) - 1 do
    counts.sum[k + 1] = counts.sum[k] + above(k)
  end
  local own = tonumber(call('ZSCORE', deep, user) or 0)
  local all = counts.sum[math.min(rounds, deepest)] - math.min(own, rounds)
  if above(rounds) == (own > rounds and 1 or 0) then return all end
  local first = call('ZCOUNT', ring, '-inf', '(' .. turn)
  local looked, more = math.min(first, 256), 0
  if looked == 0 then return all end
  for _, other in ipairs(call('ZRANGE', ring, 0, looked - 1)) do
    if other ~= user and tonumber(call('ZSCORE', deep, other) or 0) > rounds then
      more = more + 1
    end
  end
  return all + math.floor(more * first / looked)
end

-- The position of a waiter, how many wait for what it waits for, and the gates of that
-- (policy.FairQueue.position).
local function place(r, seen)
  if r.s == 'u' then
    local q = P .. 'q:' .. r.u
    return call('ZCOUNT', q, '-inf', '(' .. r.n) + 1, call('ZCARD', q), {'u' .. r.u}
  end
  local gates, mine, groups = gates_of(r.g), {}, {}
  for _, gate in ipairs(gates) do
    local name = string.sub(gate, 2)
    mine[name] = true
    for _, g in ipairs(call('SMEMBERS', P .. 'at:' .. name)) do groups[g] = true end
  end
  local turn = call('ZSCORE', P .. 'ring:' .. r.g, r.u)
  local own, others, waiting = 0, 0, 0
  for g in pairs(groups) do
    local lane = P .. 'lane:' .. g .. SEP .. r.u
    own = own + call('ZCOUNT', lane, '-inf', '(' .. r.n)
  end
  for g in pairs(groups) do
    local common, total, within = 0, 0, true
    for name in string.gmatch(g, '[^,]+') do
      local slots = tonumber(call('HGET', P .. 'lim', 'a' .. name) or 1)
      total = total + slots
      if mine[name] then common = common + slots else within = false end
    end
    local share = within and 1 or common / math.max(1, total)
    others = others + ahead(g, r.u, own, turn, seen) * share
    waiting = waiting + ahead(g, '', 1e9, '-inf', seen)
  end
  return 1 + own + math.floor(others + 1e-9), waiting, gates
end

-- The same as one answer: position, waiting, the loads of the gates.
local function placed(r, now)
  local position, waiting, gates = place(r, {})
  local loads = {}
  for i, gate in ipairs(gates) do loads[i] = load_of(gate, now) end
  return position, waiting, loads
end

-- What choose is given of the accounts in their order: limits, and what is set aside.
local function limits_of(tiers)
  local fields = {'!clock', '!shift', '!learn'}
  for name in string.gmatch(tiers, '[^,;]+') do
    fields[#fields + 1] = 'a' .. name
    fields[#fields + 1] = '~a' .. name
  end
  return call('HMGET', P .. 'lim', unpack(fields))
end

-- A slot for a node, of the best tier that has room, there of the emptiest. Returns
-- the name, which names exist, the slot's source, and where what is left in the best
-- tier is set aside for others.
local function choose(tiers, limits, node)
  local known, i, asked = {}, 4, {}
  for tier in string.gmatch(tiers, '[^;]+') do
    local best, least_share, least, from
    local others = {}
    for name in string.gmatch(tier, '[^,]+') do
      local limit, aside = tonumber(limits[i]), tonumber(limits[i + 1] or 0)
      i = i + 2
      if limit then
        known[#known + 1] = name
        local used = limits[3] and 0 or call('ZCARD', P .. 'run:a' .. name)
        if not limits[3] and #asked == 0 and (limit == 0 or used < limit) then
          local share = limit > 0 and used / limit or 0
          if not best or share < least_share
             or share == least_share and used < least then
            local may = 0
            if aside > 0 and limit > 0 then
              may = source('a' .. name, node, limit - used, aside)
            end
            if may then
              best, least_share, least, from = name, share, used, may
            else
              others[#others + 1] = 'a' .. name
            end
          end
        end
      end
    end
    if best then return best, known, from end
    if #asked == 0 then asked = others end
  end
  return nil, known, nil, asked
end

-- The names of a group that exist.
local function existing(group, known)
  local is, names = {}, {}
  for _, name in ipairs(known) do is[name] = true end
  for name in string.gmatch(group, '[^,]+') do
    if is[name] then names[#names + 1] = name end
  end
  return table.concat(names, ',')
end

-- Drop the leases of a node that is gone, at most *most*; how many are left to do.
local function bury(node, most, gates)
  for _, lease in ipairs(call('HKEYS', P .. 'n:' .. node)) do
    if most == 0 then return -1 end
    drop(lease, get(lease), gates)
    most = most - 1
  end
  end_spares(node, gates)
  return most
end

-- All nodes have said what they hold: those who wait may go.
local function end_learning(gates)
  call('HDEL', P .. 'lim', '!learn', '!expect', '!late')
  call('DEL', P .. 'returned', P .. 'spoken')
  for _, gate in ipairs(call('HKEYS', P .. 'lim')) do
    if string.sub(gate, 1, 1) == 'a' then touch(gates, gate) end
  end
  for _, user in ipairs(call('SMEMBERS', P .. 'waiting')) do touch(gates, 'u' .. user) end
end

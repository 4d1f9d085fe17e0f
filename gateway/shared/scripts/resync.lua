-- A node says what it has; the engine's list becomes the same.
-- ARGV: node, last (0 = more parts follow), how many ids follow, id…,
--   then for each lease: id, state, user, account, group, age in us, turn, held in us
-- The last part has the ids of all leases: others of the node are dropped. What runs
-- is taken back even above the limit; who waits stands where its age puts it. What was
-- set aside for the node is so no more: it may be among what it has.
-- -> {lease, state, account, …} of those that the engine knows better: a slot was
--    granted and the push was lost, or it was asked to end (state E). {-2} fenced.
local node, last, ids = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3])
--@ whole moment get put join join_user drop hand_on press
if not call('ZSCORE', P .. 'nodes', node) then return {-2} end
local limits = call('HMGET', P .. 'lim', '!clock', '!shift', '!learn', '!expect')
local now = moment(limits[1], limits[2])
local gates, news = {}, {}
local better = { -- what the node says -> what the engine may know better
  u = {U = true}, a = {A = true}, A = {D = true}, U = {D = true},
}
local function evicted(lease, r)
  return r.s == 'D' and (call('ZSCORE', P .. 'gone:u' .. r.u, lease)
    or r.a ~= '' and call('ZSCORE', P .. 'gone:a' .. r.a, lease))
end
local function install(lease, r, turn, held)
  put(lease, r)
  if r.s == 'u' then
    join_user(lease, r, now)
    return
  end
  call('ZADD', P .. 'run:u' .. r.u, now - held, lease)
  if r.s == 'a' then
    join(lease, r, turn, now)
  elseif r.a ~= '' then
    call('ZADD', P .. 'run:a' .. r.a, now - held, lease)
  end
  if r.s == 'D' then
    call('ZADD', P .. 'drain:u' .. r.u, now, lease)
    call('SADD', P .. 'drains', 'u' .. r.u)
    if r.a ~= '' then
      call('ZADD', P .. 'drain:a' .. r.a, now, lease)
      call('SADD', P .. 'drains', 'a' .. r.a)
    end
  end
end
if last then
  local listed = {}
  for i = 4, 3 + ids do listed[ARGV[i]] = true end
  for _, lease in ipairs(call('HKEYS', P .. 'n:' .. node)) do
    if not listed[lease] then drop(lease, get(lease), gates) end
  end
end
for i = 4 + ids, #ARGV, 8 do
  local lease, said = ARGV[i], ARGV[i + 1]
  local r = get(lease)
  if r and better[said] and better[said][r.s] then
    news[#news + 1] = lease
    news[#news + 1] = r.s
    news[#news + 1] = r.a
  elseif r and r.s == said and r.a == ARGV[i + 3] and said ~= 'a' then
    if evicted(lease, r) then
      news[#news + 1] = lease
      news[#news + 1] = 'E'
      news[#news + 1] = r.a
    end
  elseif not (r and r.s == 'a' and said == 'a' and r.g == ARGV[i + 4]) then
    local arrival, turn = r and r.n or whole(now - ARGV[i + 5]), ARGV[i + 6]
    if r then
      drop(lease, r, gates)
      if r.t ~= '' then turn = r.t end
    end
    if turn == '' then turn = arrival end
    install(lease, {s = said, u = ARGV[i + 2], a = ARGV[i + 3], g = ARGV[i + 4],
                    n = arrival, t = ''}, turn, ARGV[i + 7])
    touch(gates, 'u' .. ARGV[i + 2])
    for name in string.gmatch(ARGV[i + 4], '[^,]+') do touch(gates, 'a' .. name) end
    if ARGV[i + 3] ~= '' then touch(gates, 'a' .. ARGV[i + 3]) end
  end
end
if last then
  --@ end_spares
  end_spares(node, gates)
  if limits[3] and call('SMOVE', P .. 'returned', P .. 'spoken', node) == 1
     and call('SCARD', P .. 'spoken') >= tonumber(limits[4] or 1e9) then
    --@ end_learning
    end_learning(gates)
  end
  hand_on(gates)
end
return news

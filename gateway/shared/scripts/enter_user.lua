-- A request asks for its user's slot.
-- ARGV: lease, user, most that may wait, age in us, session of a reserved position,
--   requests a minute (0 = no limit), tiers "a,b;c" of the accounts that it asks for
--   next: where it has its user's slot at once and one is free, it has that, too
-- -> {1, admitted, source} it has the slot; source: 1 = it was set aside for its node
--    {1, admitted, source, account, source} it has one of that account, too
--    {0, admitted, position, waiting, loads} it waits
--    {-1, position, waiting, loads} too many wait; {-2} fenced; {-3} no such user
--    {-4, us} too many requests a minute; so long until the next
local lease, user, most, age = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
--@ alive moment whole pack get put
if not alive(lease) then return {-2} end
local gate = 'u' .. user
local known = call('HMGET', P .. 'lim', gate, '!clock', '!shift', '!learn', '~' .. gate)
if not known[1] then return {-3} end
local limit, now = tonumber(known[1]), moment(known[2], known[3])
local r = {s = 'U', u = user, a = '', g = '', n = whole(now - age), t = ''}
local home = P .. 'n:' .. node_of(lease)
local fresh = call('HSETNX', home, lease, pack(r)) == 1
local admitted = 0
if not fresh then
  r = get(lease) -- asked before: the answer was lost, or it stood aside
elseif ARGV[6] ~= '0' then
  local rpm = P .. 'rpm:' .. user
  call('ZREMRANGEBYSCORE', rpm, '-inf', now - 60000000)
  if call('ZCARD', rpm) >= tonumber(ARGV[6]) then
    local first = call('ZRANGE', rpm, 0, 0, 'WITHSCORES')[2]
    call('HDEL', home, lease)
    return {-4, first + 60000000 - now}
  end
  call('ZADD', rpm, now, lease)
  call('PEXPIRE', rpm, 60000)
end
if fresh and ARGV[5] ~= '' then
  local kept = P .. 'kept:' .. user .. SEP .. ARGV[5]
  local entry = call('LPOP', kept)
  while entry do
    local arrival, turn, till = string.match(entry, '^(.-)|(.-)|(.-)$')
    if tonumber(till) > now then
      r.n, r.t, admitted = arrival, turn, 1
      break
    end
    entry = call('LPOP', kept)
  end
end
local drawn, from, aside, of_account = 0, nil, nil, 0
if not known[4] then
  local left = limit == 0 and 1 or limit - call('ZCARD', P .. 'run:' .. gate)
  if left > 0 then
    from, aside = 0, tonumber(known[5] or 0)
    if aside > 0 and limit > 0 then
      --@ source
      from = source(gate, node_of(lease), left, aside)
    end
  end
end
if from and (fresh or r.s == 'y') then
  r.s, drawn = 'U', from
  if from == 1 then
    --@ draw
    draw(gate, node_of(lease))
  end
  call('ZADD', P .. 'run:' .. gate, now, lease)
  if ARGV[7] ~= '' then
    --@ limits_of choose
    local best, _, source_of = choose(ARGV[7], limits_of(ARGV[7]), node_of(lease))
    if best then
      if source_of == 1 then
        --@ draw
        draw('a' .. best, node_of(lease))
      end
      call('ZADD', P .. 'run:a' .. best, now, lease)
      r.s, r.a, r.t, of_account = 'A', best, '', source_of
    end
  end
  if not fresh or admitted == 1 or r.s == 'A' then put(lease, r) end
elseif fresh or r.s == 'y' then
  --@ join_user part_user waits ending press placed recall
  local before = r.s
  r.s = 'u'
  put(lease, r)
  join_user(lease, r, now)
  local waiting, more = waits(user), 0
  if aside then more = recall({gate}, 0) end -- its slot comes with the answer to that
  if before == 'U' and admitted == 0 and waiting > most
     and waiting > most + ending({gate}) + more then
    local position, others, loads = placed(r, now)
    part_user(lease, r)
    call('HDEL', home, lease)
    return {-1, position, others, loads}
  end
  if not known[4] and not aside then press({gate}) end
end
if r.s == 'A' then return {1, admitted, drawn, r.a, of_account} end
if r.s ~= 'u' then return {1, admitted, drawn} end
--@ placed
return {0, admitted, placed(r, now)}

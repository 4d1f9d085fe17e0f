-- A request gives back what it has, or leaves its line.
-- ARGV: lease, what, session, ms
--   what: "*" everything; "a" the account's slot, or the place in the line for one;
--   "t" that place, but its user's turn is kept for the next wait
--   session: whose position is reserved for so many ms; "" = none
-- -> 1; 0 = there is no such lease, or it has nothing of the kind
local lease, what = ARGV[1], ARGV[2]
--@ get put node_of part waits_no_more part_user touch give drop
local r, gates = get(lease), {}
if not r then return 0 end -- said twice, or taken away: no other's slot is touched
if what == '*' then
  drop(lease, r, gates)
  if ARGV[3] ~= '' and string.find('uyax', r.s, 1, true) then
    if r.s == 'u' then r.t = '' end
    --@ moment whole
    local known = call('HMGET', P .. 'lim', '!clock', '!shift')
    local till = moment(known[1], known[2]) + ARGV[4] * 1000
    local kept = P .. 'kept:' .. r.u .. SEP .. ARGV[3]
    call('RPUSH', kept, r.n .. '|' .. r.t .. '|' .. whole(till))
    call('PEXPIRE', kept, ARGV[4])
  end
elseif r.s == 'a' or r.s == 'x' then
  if r.s == 'a' then r.t = part(lease, r) end
  r.s, r.g = 'U', ''
  if what == 'a' then r.t = '' end
  put(lease, r)
elseif r.a ~= '' then
  give(gates, lease, r, 'a' .. r.a)
  r.a = ''
  if r.s == 'A' then r.s = 'U' end
  put(lease, r)
else
  return 0
end
if #gates > 0 and call('EXISTS', P .. 'waiting') == 1 then
  --@ hand_on
  hand_on(gates)
end
return 1

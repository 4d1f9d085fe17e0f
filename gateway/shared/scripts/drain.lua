-- A request's client has left: it keeps its slots only as long as no other needs them.
-- ARGV: lease   -> 1; 0 = it has no slot; {-2} fenced
local lease = ARGV[1]
--@ alive get put moment press
if not alive(lease) then return {-2} end
local r = get(lease)
if not r or r.s ~= 'A' and r.s ~= 'U' then return 0 end
local known = call('HMGET', P .. 'lim', '!clock', '!shift', '!learn')
local now = moment(known[1], known[2])
local gates = {'u' .. r.u}
if r.a ~= '' then gates = {'a' .. r.a, 'u' .. r.u} end
r.s = 'D'
put(lease, r)
for _, gate in ipairs(gates) do
  call('ZADD', P .. 'drain:' .. gate, now, lease)
  call('SADD', P .. 'drains', gate)
  if not known[3] then press({gate}) end
end
return 1

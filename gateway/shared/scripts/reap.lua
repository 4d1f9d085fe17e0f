-- A node is known to have ended: its slots are free now.
-- ARGV: node   -> how many leases it had; -1 = another has reaped it, or it never was
local node, gates = ARGV[1], {}
--@ bury hand_on
local known = call('ZREM', P .. 'nodes', node) + call('ZREM', P .. 'dead', node)
call('ZREM', P .. 'names', node)
local leases = call('HLEN', P .. 'n:' .. node)
bury(node, leases, gates)
hand_on(gates)
if known == 0 and leases == 0 then return -1 end
return leases

-- A node gives back what was set aside for it: another needs it.
-- ARGV: node, gate, how many it keeps   -> 1
--@ set_aside hand_on
local node, gate, keep = ARGV[1], ARGV[2], tonumber(ARGV[3])
if tonumber(call('HGET', P .. 'spare:' .. gate, node) or 0) > keep then
  set_aside(gate, node, keep)
  hand_on({gate})
end
return 1

-- The one request that asks an account whether it is well again.
-- ARGV: key, attempt, ms (0 = it is over)   -> 1 this attempt has (had) it; 0 another
local key = P .. 'probe:' .. ARGV[1]
local holder = call('GET', key)
if holder and holder ~= ARGV[2] then return 0 end
if ARGV[3] == '0' then
  return call('DEL', key)
elseif not holder then
  call('SET', key, ARGV[2], 'PX', ARGV[3])
end
return 1

-- What a request has used of its user's budgets, counted once.
-- ARGV: user, id of the request, then key, amount, ms to keep …   -> 1; 0 = said twice
if not call('SET', P .. 'spent:' .. ARGV[2], 1, 'NX', 'PX', 60000) then return 0 end
for i = 3, #ARGV, 3 do
  local sum = P .. 'b:' .. ARGV[1] .. SEP .. ARGV[i]
  call('INCRBYFLOAT', sum, ARGV[i + 1])
  call('PEXPIRE', sum, ARGV[i + 2])
end
return 1

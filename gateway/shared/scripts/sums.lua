-- The sums of the ledger: one that the engine has forgotten, or missed, is put right.
-- A sum only grows, so the larger one is the newer one.
-- ARGV: user, then key, sum, ms to keep …   -> {sum, …} as they are now
local answer = {}
for i = 2, #ARGV, 3 do
  local key, sum = P .. 'b:' .. ARGV[1] .. SEP .. ARGV[i], ARGV[i + 1]
  local known = call('GET', key)
  if not known or tonumber(known) < tonumber(sum) then
    call('SET', key, sum, 'PX', ARGV[i + 2])
    known = sum
  end
  answer[#answer + 1] = known
end
return answer

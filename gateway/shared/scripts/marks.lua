-- Everything that is known of accounts' health: for a node that joins.
-- -> {key, version, text, …}
local found = {}
local all = call('HGETALL', P .. 'marks')
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for i = 1, #all, 2 do
  local version, text = string.match(all[i + 1], '^(%d+)\1(.*)$')
  if tonumber(call('ZSCORE', P .. 'mark_ends', all[i]) or 0) > now then
    found[#found + 1] = all[i]
    found[#found + 1] = tonumber(version)
    found[#found + 1] = text
  end
end
return found

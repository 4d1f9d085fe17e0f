-- Where waiters stand.
-- ARGV: lease…   -> {{lease, position, waiting, gate, gate…}…, }, {load…}
--@ get moment load_of place
local known = call('HMGET', P .. 'lim', '!clock', '!shift')
local now = moment(known[1], known[2])
local places, loads, seen, had = {}, {}, {}, {}
for _, lease in ipairs(ARGV) do
  local r = get(lease)
  if r and (r.s == 'u' or r.s == 'a') then
    local position, waiting, gates = place(r, seen)
    places[#places + 1] = {lease, position, waiting, unpack(gates)}
    for _, gate in ipairs(gates) do
      if not had[gate] then
        had[gate] = true
        loads[#loads + 1] = load_of(gate, now)
      end
    end
  end
end
return {places, loads}

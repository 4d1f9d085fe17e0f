-- What is known of an account's health: compare and set.
-- ARGV: key, version that the change was made from (0 = none), text ("" = forget), ms
-- -> {1, version}; {0, version, text} another has changed it
local key, text = ARGV[1], ARGV[3]
local old = call('HGET', P .. 'marks', key)
local version, known = '0', ''
if old then version, known = string.match(old, '^(%d+)\1(.*)$') end
if old and known == text then return {1, tonumber(version)} end -- said twice
if version ~= ARGV[2] then return {0, tonumber(version), known} end
local fresh = call('HINCRBY', P .. 'lim', '!mark', 1)
if text == '' then
  call('HDEL', P .. 'marks', key)
  call('ZREM', P .. 'mark_ends', key)
else
  local t = call('TIME')
  local now = t[1] * 1000 + math.floor(t[2] / 1000)
  for _, over in ipairs(call('ZRANGEBYSCORE', P .. 'mark_ends', '-inf', now,
                             'LIMIT', 0, 16)) do
    call('HDEL', P .. 'marks', over)
    call('ZREM', P .. 'mark_ends', over)
  end
  call('HSET', P .. 'marks', key, fresh .. SEP .. text)
  call('ZADD', P .. 'mark_ends', now + ARGV[4], key)
end
call('PUBLISH', P .. 'all', 'M ' .. key .. SEP .. fresh .. SEP .. text)
return {1, fresh}

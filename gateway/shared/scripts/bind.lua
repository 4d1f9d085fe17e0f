-- The accounts that know a session.
-- ARGV: key, text, ms to keep   -> 1
call('SET', P .. 'sess:' .. ARGV[1], ARGV[2], 'PX', ARGV[3])
return 1

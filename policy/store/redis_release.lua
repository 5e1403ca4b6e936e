#!lua
-- Give a lock back.
--
-- KEYS[1] the lock
-- ARGV    1 holder
-- Returns 1, or 0 where the holder does not have it.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1])
return 1

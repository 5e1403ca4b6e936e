#!lua
-- Remove the file at a path, and all below it.
--
-- KEYS[1] the files
-- ARGV    1 path
-- Returns how many they were.
local gone, below = 0, ARGV[1] .. '/'
for _, path in ipairs(redis.call('HKEYS', KEYS[1])) do
  if path == ARGV[1] or string.sub(path, 1, #below) == below then
    gone = gone + redis.call('HDEL', KEYS[1], path)
  end
end
return gone

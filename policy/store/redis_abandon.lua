#!lua flags=allow-oom
-- Forget a call that had no effect. Of one that was taken over, end the lease alone: the owner before may have had one.
--
-- KEYS[1] the record (see redis_begin.lua)
-- ARGV    1 attempt(16)
-- Returns 1 done, or there is no record, 0 the attempt is not the owner, or has finished.
local record = redis.call('GET', KEYS[1])
if not record then
  return 1
end
local state = string.sub(record, 1, 1)
if #record ~= 94 or not string.find(record, '^[BTK]') or not string.find(record, '^%d+$', 50) then
  return redis.error_reply('ERR not a record')
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now >= tonumber(string.sub(record, 65, 79)) then -- the key itself stays through its last millisecond
  return 1
end
if now >= tonumber(string.sub(record, 50, 64)) or state == 'K' or string.sub(record, 2, 17) ~= ARGV[1] then
  return 0
end
if state == 'T' then
  redis.call('SET', KEYS[1], string.sub(record, 1, 79) .. string.rep('0', 15), 'KEEPTTL')
else
  redis.call('DEL', KEYS[1])
end
return 1

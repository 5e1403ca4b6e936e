#!lua
-- Begin a call that carries an idempotency key, or return the answer that is kept of it.
--
-- KEYS[1] the record   KEYS[2] the answer
-- ARGV    1 attempt(16)   2 digest of the body(32)   3 lease, ms   4 time to live, ms   5 tombstone's time after that, ms
-- Returns the answer, or 0 the caller is the owner, 1 it took over from one whose lease ran out,
-- 2 in flight, 3 begun with another body, 4 begun too long ago.
--
-- A record is state attempt(16) body(32), and three times of 15 digits, ms: the ends of its time to live, of
-- its tombstone and of its lease. Its state is 'B' begun, 'T' begun and taken over, 'K' kept: then the answer
-- stands in a key of its own, which ends when the time to live does, while the record stays as the tombstone.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local record = redis.call('GET', KEYS[1])
if record and (#record ~= 94 or not string.find(record, '^[BTK]') or not string.find(record, '^%d+$', 50)) then
  return redis.error_reply('ERR not a record')
end
local state = 'B'
if record and now < tonumber(string.sub(record, 65, 79)) then -- the key itself stays through its last millisecond
  state = string.sub(record, 1, 1)
  if now >= tonumber(string.sub(record, 50, 64)) then
    return 4
  end
  if string.sub(record, 18, 49) ~= ARGV[2] then
    return 3
  end
  if state == 'K' then
    return redis.call('GET', KEYS[2]) or 4
  end
  if string.sub(record, 2, 17) ~= ARGV[1] then
    if now < tonumber(string.sub(record, 80)) then
      return 2
    end
    state = 'T'
  end
end
local left = ARGV[4] + ARGV[5]
local times = string.format('%015.0f%015.0f%015.0f', now + ARGV[4], now + left, now + ARGV[3])
redis.call('SET', KEYS[1], state .. ARGV[1] .. ARGV[2] .. times, 'PX', string.format('%.0f', left))
if state == 'T' then
  return 1
end
return 0

#!lua flags=allow-oom
-- Redeem a single-use token: the first attempt gets its value, the same attempt gets it again for a while.
-- It runs when memory is full too, since what is stored must stay redeemable.
--
-- KEYS[1] the record (see redis_mint.lua)
-- ARGV    1 attempt(16)   2 replay window, ms: 0 takes the value out of the record
--         3 how much longer than its token the key stays, ms   4 the same, of a record whose value was taken out
--         5 a tenure(40), where the caller waits for replicas
-- Returns the value; or 0 unknown, 1 fenced, 2 expired; or, of a spent one, {the attempt that had it, ms since then}.
local record = redis.call('GET', KEYS[1])
if not record then
  return 0
end
local tenure = string.sub(record, 30, 69)
if ARGV[5] then
  if tenure ~= ARGV[5] then
    return 1
  end
else
  local info = redis.call('INFO', 'replication')
  if not string.find(info, 'role:master', 1, true) then
    return redis.error_reply('READONLY not a primary')
  end
  if #tenure ~= 40 or not string.find(info, 'master_replid:' .. tenure, 1, true) then
    return 1
  end
end
local left = redis.call('PTTL', KEYS[1])
local state = string.sub(record, 1, 1)
if state == 'S' then
  local attempt = string.sub(record, 2, 17)
  local since = tonumber(string.sub(record, 18, 29)) - left
  if ARGV[5] then -- written again: by its documentation WAIT knows of writes on this connection alone
    redis.call('SETRANGE', KEYS[1], '0', 'S')
  end
  -- A clock that was set back makes since negative: of a value that was taken out there is nothing to give all the same.
  if attempt ~= ARGV[1] or ARGV[2] == '0' or since >= tonumber(ARGV[2]) then
    return {attempt, since}
  end
  return string.sub(record, 70)
end
if state ~= 'L' then
  return redis.error_reply('ERR not a record')
end
if left <= tonumber(ARGV[3]) then
  return 2
end
if ARGV[2] == '0' then
  left = left - ARGV[3] + ARGV[4]
  redis.call('SET', KEYS[1], 'S' .. ARGV[1] .. string.format('%012.0f', left) .. tenure, 'PX', string.format('%.0f', left))
else
  redis.call('SETRANGE', KEYS[1], '0', 'S' .. ARGV[1] .. string.format('%012.0f', left))
end
return string.sub(record, 70)

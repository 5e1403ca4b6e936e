#!lua
-- Take one from a limit: policy.Rate.GCRA on the server's clock. All numbers are whole microseconds below 2^53.
--
-- KEYS[1] the theoretical arrival time
-- ARGV    1 interval   2 burst
-- Returns {1, 0, remaining} or {0, retry after, 0}, and the time that was taken for now.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local arrival = tonumber(redis.call('GET', KEYS[1]) or 0)
local next = math.min(math.max(arrival, now), now + burst) + interval
local ahead = next - now
if ahead > burst then
  return {0, ahead - burst, 0, now}
end
redis.call('SET', KEYS[1], string.format('%.0f', next), 'PX', string.format('%.0f', math.ceil(ahead / 1000)))
return {1, 0, math.floor((burst - ahead) / interval), now}

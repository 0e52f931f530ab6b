-- The sliding window of window.py, counted in the store, for all processes, in one step.
--
-- KEYS[1]  a client's window: a list of the moments of its admitted calls, oldest first
-- ARGV[1]  the limit's calls
-- ARGV[2]  its period, in microseconds
-- ARGV[3]  the moment, in microseconds; the store's own clock where it is left out
--
-- Returns the calls left (-1 if this one is refused), and the microseconds until the oldest counted
-- call leaves the window and until a call is admitted again (0 if this one is).
--
-- A double holds whole microseconds exactly until the year 2255, but turns into text with 14 or 17
-- digits, as it pleases: whatever is stored is formatted here.

local key, calls, period = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local now = ARGV[3] and tonumber(ARGV[3])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

local length = redis.call('LLEN', key)

local function moment_at(index)
  return tonumber(redis.call('LINDEX', key, index))
end

-- How many calls came at this moment or before. In halves: one by one, a window of 100,000 calls
-- that run out together would stop the store for a tenth of a second.
local function count_until(moment)
  local low, high = 0, length
  while low < high do
    local middle = math.floor((low + high) / 2)
    if moment_at(middle) <= moment then low = middle + 1 else high = middle end
  end
  return low
end

-- One more than the period: the store cuts the moment at which it begins to whole milliseconds, and
-- would forget up to one too early.
local function expire()
  redis.call('PEXPIRE', key, math.ceil(period / 1000) + 1)
end

-- The clock was set back. What lies in the future came before now, so it is counted as of now: no
-- call leaves before its time, and none stays for more than a period from here on.
if length > 0 and moment_at(-1) > now then
  local past = count_until(now)
  if past == 0 then redis.call('DEL', key) else redis.call('LTRIM', key, 0, past - 1) end
  local text = string.format('%.0f', now)
  for start = past, length - 1, 1000 do -- unpack() has room for some thousands
    local some = {}
    for index = start, math.min(start + 999, length - 1) do some[#some + 1] = text end
    redis.call('RPUSH', key, unpack(some))
  end
  expire()
end

local horizon = now - period
if length > 0 and moment_at(0) <= horizon then
  local gone = count_until(horizon)
  redis.call('LTRIM', key, gone, -1)
  length = length - gone
end

local oldest = length > 0 and moment_at(0) or now
if length >= calls then
  -- Not the oldest where another process, with a higher limit, has counted more than ours has.
  return {-1, oldest - horizon, moment_at(length - calls) - horizon}
end
redis.call('RPUSH', key, string.format('%.0f', now))
expire()
return {calls - length - 1, oldest - horizon, 0}

-- What the scripts share: it stands before each of them.
local call, unpack_struct, ARGV, KEYS = redis.call, struct.unpack, ARGV, KEYS

-- Lua's stack takes some 8,000 values at once.
local UNPACKED_MAX = 4000

-- A blob is a run of byte strings, each behind its length (2 bytes, big-endian): one argument instead of thousands.
local PAIR, TRIPLE = '>I2c0I2c0', '>I2c0I2c0I2c0'

-- In a slot a decision lies under its transaction id, its verdict under the same behind a byte that no id has.
local function verdict_field(id) return '\0' .. id end

local function now_ms()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- An update of a shared row, at ARGV[at]: heads seen, heads new, last byte of the heads, bytes of the row,
-- number of clears, number of tokens, clears (offset, length), tokens of BITFIELD. Many rows may share one.
local parsed = {}
local function update_at(at)
  local update = parsed[at]
  if not update then
    local tokens = at + 6 + 2 * ARGV[at + 4]
    update = {
      seen = ARGV[at], heads = ARGV[at + 1], heads_end = ARGV[at + 2], row_bytes = ARGV[at + 3],
      clears = at + 6, tokens = tokens, stop = tokens + ARGV[at + 5],
    }
    parsed[at] = update
  end
  return update
end

-- Moved heads give slots to other tiles: additions made for other heads would land in the wrong ones. Heads that another
-- commit has moved to where this one would are as good: then only the additions are left to do. A row that another commit
-- has made is not: whoever makes it has counted the key as new. Answers whether the update can be applied, and whether the
-- heads are there already.
local function heads_hold(key, update)
  local heads = call('GETRANGE', key, '0', update.heads_end)
  if heads == update.seen then return true, false end
  return update.seen ~= '' and heads ~= '' and heads == update.heads, true
end

local function apply_update(key, update, moved, ttl_ms)
  local heads = update.heads
  if moved then heads = '' end
  if update.seen == '' and not moved then
    call('SET', key, heads .. string.rep('\0', update.row_bytes - #heads), 'PX', ttl_ms)
  elseif heads ~= '' then
    for i = update.clears, update.tokens - 1, 2 do
      call('SETRANGE', key, ARGV[i], string.rep('\0', ARGV[i + 1]))
    end
    call('SETRANGE', key, '0', heads)
    call('PEXPIRE', key, ttl_ms)
  end
  if update.stop > update.tokens then
    call('BITFIELD', key, 'OVERFLOW', 'SAT', unpack(ARGV, update.tokens, update.stop - 1))
  end
end

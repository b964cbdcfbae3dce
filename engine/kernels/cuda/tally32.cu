// Adds 32-bit floats up by the top halves of their patterns: how many, the sum of the low halves, and that of
// their squares. Every block keeps four tables of 32-bit sums in shared memory for WINDOW exponents from
// FIRST_EXPONENT on; what lies outside (zeros are counted in registers) goes to the totals directly.
//
// The square of a low half is added in two halves, so no sum overflows before one code has been seen 65,537
// times: a block looks after every TILE elements and empties the tables in time.
//
// state: 3 x 65,536 sums (count, low, square), then the zeros and the smallest and largest key; see `key_of`.

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;
typedef unsigned long long u64;

#define CODES 65536
#define ENTRIES (WINDOW * 256)
#define NO_KEY 0x7FFFFFFF

extern __shared__ u32 table[];  // counts, lows, high halves of squares, low halves of squares

struct Seen {  // by one thread, in registers
  u32 zeros[2];
  int low, high;
  u32 far, times;  // the last pattern outside the window, and how often it came in a row
};

// Integers in the order of the floats; -0.0 lies just below 0.0.
__device__ __forceinline__ int key_of(u32 pattern) {
  return (int)(pattern ^ (u32)((int)pattern >> 31) >> 1);
}

__device__ __forceinline__ void see(u32 pattern, Seen& seen) {
  const int key = key_of(pattern);
  seen.low = min(seen.low, key);
  seen.high = max(seen.high, key);
}

// Add a run of one pattern outside the window.
__device__ __noinline__ void add_far(u32 pattern, u32 times, u64* state) {
  const u64 n = times, low = pattern & 0xFFFFu;
  u32 code = pattern >> 16;
  if (low && (code & 0x7FFFu) == 0x7F80u) code |= 0x40u;  // a NaN whose payload lies in the low half
  atomicAdd(&state[code], n);
  if (!low) return;
  atomicAdd(&state[CODES + code], n * low);
  atomicAdd(&state[2 * CODES + code], n * low * low);
}

__device__ __forceinline__ void add(u32 pattern, Seen& seen, u64* state) {
  const u32 magnitude = pattern & 0x7FFFFFFFu;
  const u32 place = (magnitude >> 15 & ~1u | pattern >> 31) - FIRST_EXPONENT * 256;
  if (place < ENTRIES) {
    const u32 low = pattern & 0xFFFFu, square = low * low;
    see(pattern, seen);
    atomicAdd(&table[place], 1u);
    if (low) {
      atomicAdd(&table[ENTRIES + place], low);
      atomicAdd(&table[2 * ENTRIES + place], square >> 16);
      atomicAdd(&table[3 * ENTRIES + place], square & 0xFFFFu);
    }
  } else if (magnitude == 0) {
    ++seen.zeros[0];
    seen.zeros[1] += pattern >> 31;
  } else {
    if (pattern != seen.far) {
      if (magnitude < 0x7F800000u) see(pattern, seen);
      if (seen.times) add_far(seen.far, seen.times, state);
      seen.far = pattern;
      seen.times = 0;
    }
    ++seen.times;
  }
}

__device__ __forceinline__ void begin(Seen& seen) {
  seen = {{0, 0}, NO_KEY, ~NO_KEY, 0, 0};
  for (u32 i = threadIdx.x; i < 4 * ENTRIES; i += THREADS) table[i] = 0;
  __syncthreads();
}

// All threads of the block call it together.
__device__ __forceinline__ void empty_tables(u64* state) {
  __syncthreads();
  const u32 start = ENTRIES / gridDim.x * blockIdx.x;  // blocks that end together begin at different codes
  for (u32 k = threadIdx.x; k < ENTRIES; k += THREADS) {
    const u32 place = k + start < ENTRIES ? k + start : k + start - ENTRIES;
    const u32 n = table[place];
    if (!n) continue;
    const u32 rank = place + FIRST_EXPONENT * 256, code = rank >> 1 | (rank & 1u) << 15;
    const u64 low = table[ENTRIES + place];
    const u64 square = ((u64)table[2 * ENTRIES + place] << 16) + table[3 * ENTRIES + place];
    atomicAdd(&state[code], (u64)n);
    if (low) {
      atomicAdd(&state[CODES + code], low);
      atomicAdd(&state[2 * CODES + code], square);
    }
#pragma unroll
    for (int t = 0; t < 4; ++t) table[t * ENTRIES + place] = 0;
  }
  __syncthreads();
}

// After a tile: empty the tables if another tile could overflow them.
__device__ __forceinline__ void settle(u64* state) {
  __syncthreads();
  bool full = false;
  for (u32 place = threadIdx.x; place < ENTRIES; place += THREADS) full |= table[place] > 65536 - TILE;
  if (__syncthreads_or(full)) empty_tables(state);
}

__device__ __forceinline__ void finish(Seen& seen, u64* state) {
  empty_tables(state);
  if (seen.times) add_far(seen.far, seen.times, state);
  if (seen.zeros[0]) see(0, seen);
  const u32 all = 0xFFFFFFFFu;
  const u64 zeros = __reduce_add_sync(all, seen.zeros[0]), negative = __reduce_add_sync(all, seen.zeros[1]);
  const int low = __reduce_min_sync(all, seen.low), high = __reduce_max_sync(all, seen.high);
  if (threadIdx.x % 32) return;
  if (zeros) {
    atomicAdd(&state[0], zeros - negative);
    atomicAdd(&state[0x8000], negative);
    atomicAdd(&state[3 * CODES], zeros);
  }
  long long* keys = (long long*)(state + 3 * CODES + 1);
  if (low <= high) {
    atomicMin(&keys[0], (long long)low);
    atomicMax(&keys[1], (long long)high);
  }
}

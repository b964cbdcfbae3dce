// Counts 16-bit patterns in shared memory, one table of 32-bit counters in each block.
//
// Codes are ordered by magnitude, the sign last; the first ENTRIES of them, as many as a block's shared
// memory holds (on Hopper 58,112 of 65,536), have their counters there, the others in the block's own part of the
// GPU's memory: one table for all blocks would make them wait for each other.
// Adding 1 to shared memory is one instruction that also counts the lanes that agree, so a value that recurs
// costs nothing.

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;

extern __shared__ u32 table[];

// Where the counter of a code lies. `skip` moves the codes that have none from the largest magnitudes to those
// just below place `skip`.
__device__ __forceinline__ u32 place_of(u32 code, u32 skip) {
  return ((code << 1 | code >> 15) - skip) & 0xFFFFu;
}

__device__ __forceinline__ u32 code_at(u32 place, u32 skip) {
  place = (place + skip) & 0xFFFFu;
  return place >> 1 | (place & 1u) << 15;
}

__device__ __forceinline__ void count_one(u32 code, u32 skip, u32* far) {
  const u32 place = place_of(code, skip);
  if (place < ENTRIES) atomicAdd(&table[place], 1u);
  else atomicAdd(&far[place - ENTRIES], 1u);
}

__device__ __forceinline__ void count_eight(uint4 words, u32 skip, u32* far) {
  const u32 word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    count_one(word[k] & 0xFFFFu, skip, far);
    count_one(word[k] >> 16, skip, far);
  }
}

// codes: n patterns at an even address; totals: 65,536 counts, added to; far: 65,536 - ENTRIES counters for each
// block, whatever they hold.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
count16(const u16* codes, u64 n, u64* totals, u32* far, u32 skip) {
  for (u32 i = threadIdx.x; i < ENTRIES; i += THREADS) table[i] = 0;
  far += (u64)blockIdx.x * (65536 - ENTRIES);
  for (u32 i = threadIdx.x; i < 65536 - ENTRIES; i += THREADS) far[i] = 0;
  __syncthreads();
  u64 head = ((0 - (u64)codes) & 15) / 2;
  if (head > n) head = n;
  const uint4* words = (const uint4*)(codes + head);
  const u64 whole = (n - head) / 8, step = (u64)gridDim.x * THREADS;
  u64 i = (u64)blockIdx.x * THREADS + threadIdx.x;
  if (i < head) count_one(codes[i], skip, far);
  if (head + whole * 8 + i < n) count_one(codes[head + whole * 8 + i], skip, far);
  for (; i + 3 * step < whole; i += 4 * step) {
    const uint4 a = __ldcs(words + i), b = __ldcs(words + i + step);
    const uint4 c = __ldcs(words + i + 2 * step), d = __ldcs(words + i + 3 * step);
    count_eight(a, skip, far);
    count_eight(b, skip, far);
    count_eight(c, skip, far);
    count_eight(d, skip, far);
  }
  for (; i < whole; i += step) count_eight(__ldcs(words + i), skip, far);
  __syncthreads();
  const u32 start = ENTRIES / gridDim.x * blockIdx.x;  // blocks that end together begin at different codes
  for (u32 k = threadIdx.x; k < ENTRIES; k += THREADS) {
    const u32 place = k + start < ENTRIES ? k + start : k + start - ENTRIES;
    if (table[place]) atomicAdd(&totals[code_at(place, skip)], (u64)table[place]);
  }
  for (u32 i = threadIdx.x; i < 65536 - ENTRIES; i += THREADS) {
    const u32 n = __ldcg(far + i);  // past the first-level cache, which atomic additions do not touch
    if (n) atomicAdd(&totals[code_at(ENTRIES + i, skip)], (u64)n);
  }
}

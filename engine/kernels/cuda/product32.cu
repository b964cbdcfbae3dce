// Adds up the elements of scale * (B @ A) as they are formed in registers. Follows tally32.cu.
//
// Each element is fmaf(b[k], a[k], sum) for k = 0, 1, ... from +0, then multiplied by `scale`: the same bits
// whatever the launch. The factors come to shared memory in chunks of DEEP of the rank, two buffers in turn, so
// the next chunk travels while one is multiplied or a tile is added up.

#define ROWS 128
#define COLUMNS 256
#define DEEP 16
#define PITCH_A COLUMNS
#define PITCH_B (ROWS + 4)  // so that the lanes that turn B over write to different banks
#define BUFFER (DEEP * (PITCH_A + PITCH_B))


static_assert(ROWS * COLUMNS == TILE && TILE == 64 * THREADS, "64 elements of a tile for each thread");

struct Factors {
  const float *b, *a;  // (rows, rank) and (rank, pitch)
  u32 rows, columns, pitch, rank;
};

struct Tile {
  float sum[8][8];
};

struct Chunk {
  u32 row, column, k;
};

// Where the thread's 8 x 8 elements lie in a tile; its last four columns are 32 further. A warp has 32 x 64
// elements, so that it reads few factors.
__device__ __forceinline__ u32 my_row() { return threadIdx.x / 128 * 32 + threadIdx.x % 32 / 8 * 8; }
__device__ __forceinline__ u32 my_column() { return threadIdx.x / 32 % 4 * 64 + threadIdx.x % 8 * 4; }

// Begin to copy some bytes, or zeros if they do not exist.
template <int BYTES> __device__ __forceinline__ void copy_later(float* to, const float* from, bool exist) {
  const u32 address = (u32)__cvta_generic_to_shared(to);
  if (BYTES == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(exist ? 16 : 0));
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address), "l"(from), "r"(exist ? 4 : 0));
}

__device__ __forceinline__ void fetch(const Factors& f, const Chunk& chunk, float* buffer) {
#pragma unroll
  for (u32 e = threadIdx.x; e < DEEP * COLUMNS / 4; e += THREADS) {
    const u32 d = e / (COLUMNS / 4), within = e % (COLUMNS / 4) * 4, c = chunk.column + within;
    const bool exist = c < f.pitch && chunk.k + d < f.rank;
    const float* from = exist ? f.a + (u64)(chunk.k + d) * f.pitch + c : f.a;
    copy_later<16>(buffer + d * PITCH_A + within, from, exist);
  }
  buffer += DEEP * PITCH_A;
#pragma unroll
  for (u32 e = threadIdx.x; e < DEEP * ROWS; e += THREADS) {
    const u32 r = e / DEEP, d = e % DEEP;
    const bool exist = chunk.row + r < f.rows && chunk.k + d < f.rank;
    const float* from = exist ? f.b + (u64)(chunk.row + r) * f.rank + chunk.k + d : f.b;
    copy_later<4>(buffer + d * PITCH_B + r, from, exist);
  }
  asm volatile("cp.async.commit_group;");
}

__device__ __forceinline__ void multiply_one(const float* a_at, const float* b_at, Tile& tile) {
  const float4 b0 = *(const float4*)b_at, b1 = *(const float4*)(b_at + 4);
  const float4 a0 = *(const float4*)a_at, a1 = *(const float4*)(a_at + 32);
  const float bv[8] = {b0.x, b0.y, b0.z, b0.w, b1.x, b1.y, b1.z, b1.w};
  const float av[8] = {a0.x, a0.y, a0.z, a0.w, a1.x, a1.y, a1.z, a1.w};
#pragma unroll
  for (int i = 0; i < 8; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j) tile.sum[i][j] = __fmaf_rn(bv[i], av[j], tile.sum[i][j]);
}

__device__ __forceinline__ void multiply(const float* buffer, u32 deep, Tile& tile) {
  const float *as = buffer + my_column(), *bs = buffer + DEEP * PITCH_A + my_row();
  if (deep >= DEEP) {
#pragma unroll
    for (int d = 0; d < DEEP; ++d) multiply_one(as + d * PITCH_A, bs + d * PITCH_B, tile);
    return;
  }
#pragma unroll 1
  for (u32 d = 0; d < deep; ++d) multiply_one(as + d * PITCH_A, bs + d * PITCH_B, tile);
}

__device__ __forceinline__ void add_tile(const Tile& tile, const Factors& f, const Chunk& chunk, float scale,
                                         float* out, Seen& seen, u64* state) {
  const u32 row = chunk.row + my_row(), column = chunk.column + my_column();
  const int down = (int)(f.rows - row), along = (int)(f.columns - column);
  if (STORE) out += (u64)row * f.columns + column;
#pragma unroll
  for (int i = 0; i < 8; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int c = j % 4 + j / 4 * 32;
      if (i >= down || c >= along) continue;
      const float value = __fmul_rn(tile.sum[i][j], scale);
      if (STORE) out[(u64)i * f.columns + c] = value;
      add(value == value ? __float_as_uint(value) : 0x7FC00000u, seen, state);
    }
}

// f.a: at a multiple of 16 bytes, f.pitch a multiple of four; below 2^31 rows and columns.
// out: (rows, columns), written if STORE is 1.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
product32(Factors f, float scale, float* out, u64* state) {
  const u32 across = (f.columns + COLUMNS - 1) / COLUMNS, tiles = across * ((f.rows + ROWS - 1) / ROWS);
  float* buffers = (float*)(table + 4 * ENTRIES);
  Seen seen;
  Tile tile = {};
  begin(seen);
  u32 number = blockIdx.x, turn = 0;
  if (number >= tiles) return;
  Chunk now = {number / across * ROWS, number % across * COLUMNS, 0};
  fetch(f, now, buffers);
  for (;;) {
    const bool last = now.k + DEEP >= f.rank;
    Chunk next = {now.row, now.column, now.k + DEEP};
    if (last) {
      number += gridDim.x;
      next = {number / across * ROWS, number % across * COLUMNS, 0};
    }
    if (number < tiles) {
      fetch(f, next, buffers + (turn ^ 1) * BUFFER);
      asm volatile("cp.async.wait_group 1;" ::: "memory");
    } else {
      asm volatile("cp.async.wait_group 0;" ::: "memory");
    }
    __syncthreads();
    multiply(buffers + turn * BUFFER, f.rank - now.k, tile);
    __syncthreads();
    if (last) {
      add_tile(tile, f, now, scale, out, seen, state);
      settle(state);
      tile = {};
      if (number >= tiles) break;
    }
    now = next;
    turn ^= 1;
  }
  finish(seen, state);
}

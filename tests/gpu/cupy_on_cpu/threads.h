// Blocks one after another; the threads of a block as fibers, each of which runs until it waits for
// others: at __syncthreads for its block, at a collective (shuffle, ballot) for its warp. A block
// in which nobody can go on is an error that says who waits where. Included by driver.cpp.
#pragma once
#include <sys/mman.h>
#include <ucontext.h>

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "simulator.h"

namespace cudasim {
struct Fiber : Thread {
  jmp_buf ctx;
};
Thread* cur;
uint3 bidx;
dim3 bdim, gdim;
unsigned char* dyn;
static std::vector<Fiber> fibers;
static std::vector<unsigned char> slots;
static jmp_buf scheduler;
static unsigned threads;
static std::vector<unsigned> places;
static size_t dyn_bytes;
static void (*body)(void**);
static void** body_args;
static char error[256];
constexpr size_t stack_bytes = 64 << 10;

void yield() {
  if (!_setjmp(((Fiber*)cur)->ctx)) _longjmp(scheduler, 1);
}
unsigned char* slot(unsigned parity, unsigned lane) {
  return &slots[((cur->warp * 2 + parity) * 32 + lane) * 64];
}
static void fiber_main() {
  for (;;) {
    body(body_args);
    cur->st = DONE;
    yield();
  }
}
static void make_fibers(unsigned n) {
  size_t have = fibers.size();
  if (n <= have) return;
  fibers.resize(n);
  slots.resize((n + 31) / 32 * 2 * 32 * 64);
  for (size_t i = have; i < n;
       i++) {  // jmp_bufs hold absolute stack addresses only, so vector growth is safe
    auto stack =
        mmap(0, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ucontext_t u;
    getcontext(&u);
    u.uc_stack.ss_sp = stack;
    u.uc_stack.ss_size = stack_bytes;
    u.uc_link = 0;
    cur = &fibers[i];
    makecontext(&u, (void (*)())(+[] {
      if (!_setjmp(((Fiber*)cur)->ctx)) _longjmp(scheduler, 1);
      fiber_main();
    }),
                0);
    if (!_setjmp(scheduler)) setcontext(&u);
  }
}
static bool warp_ready(Fiber& f) {  // all live lanes named in the mask wait at the same collective?
  unsigned base = f.warp * 32;
  for (unsigned l = 0; l < 32 && base + l < threads; l++)
    if (f.mask >> l & 1) {
      Fiber& g = fibers[base + l];
      if (g.st == DONE) continue;
      if (g.st != WARP_BAR || g.tag != f.tag || g.mask != f.mask) return false;
    }
  return true;
}
static bool run_block() {
  for (unsigned i = 0; i < threads; i++) {
    Fiber& f = fibers[i];
    f.st = RUN;
    f.lin = i;
    f.lane = i & 31;
    f.warp = i >> 5;
    f.par = 0;
    f.tid = {i % bdim.x, i / bdim.x % bdim.y, i / (bdim.x * bdim.y)};
  }
  unsigned done = 0, barred = 0;
  static unsigned turn;
  static bool progress;  // static: survive longjmp
  while (true) {
    progress = false;
    for (turn = 0; turn < threads; turn++) {
      Fiber* f = &fibers[places[turn]];
      if (f->st != RUN) continue;
      progress = true;
      cur = f;
      if (!_setjmp(scheduler)) _longjmp(f->ctx, 1);
      f = (Fiber*)cur;
      if (f->st == WARP_BAR && warp_ready(*f)) {
        unsigned m = f->mask, b = f->warp * 32;
        for (unsigned l = 0; l < 32 && b + l < threads; l++)
          if (m >> l & 1 && fibers[b + l].st == WARP_BAR) fibers[b + l].st = RUN;
      }
    }
    done = 0;
    barred = 0;
    for (unsigned i = 0; i < threads; i++) {
      done += fibers[i].st == DONE;
      barred += fibers[i].st == BLOCK_BAR;
    }
    if (done == threads) return true;
    if (barred && barred + done == threads) {
      for (unsigned i = 0; i < threads; i++)
        if (fibers[i].st == BLOCK_BAR) fibers[i].st = RUN;
      continue;
    }
    if (!progress) {
      unsigned w = 0;
      while (fibers[w].st == DONE) w++;
      snprintf(error, sizeof error,
               "deadlock in block (%u,%u,%u): %u done, %d at __syncthreads, rest at warp "
               "collective (first stuck thread %u, tag %u, mask %08x)",
               bidx.x, bidx.y, bidx.z, done, barred, w, fibers[w].tag, fibers[w].mask);
      return false;
    }
  }
}

// 0, 1, ... in the order that a number chooses: 0 as they are, 1 backwards, others shuffle.
static void arrange(std::vector<unsigned>& found, unsigned count, int order) {
  found.resize(count);
  for (unsigned i = 0; i < count; i++) found[i] = order == 1 ? count - 1 - i : i;
  unsigned r = order * 2654435761u + 1;
  if (order > 1)
    for (unsigned i = count - 1; i && count; i--) {
      r = r * 1664525u + 1013904223u;
      std::swap(found[i], found[(r >> 8) % (i + 1)]);
    }
}

// plain: no thread waits for another one, so that they may run one after another without fibers.
static int run(void (*f)(void**), bool plain, const unsigned* cfg, unsigned shmem, void** args,
               int order) {
  body = f, body_args = args;
  gdim = dim3(cfg[0], cfg[1], cfg[2]);
  bdim = dim3(cfg[3], cfg[4], cfg[5]);
  threads = bdim.x * bdim.y * bdim.z;
  error[0] = 0;
  if (!plain) make_fibers(threads);
  if (shmem > dyn_bytes) {
    free(dyn);
    dyn = (unsigned char*)aligned_alloc(1024, (shmem + 1023) & ~1023u);
    dyn_bytes = shmem;
  }
  static std::vector<unsigned> blocks;
  arrange(places, threads, order);
  arrange(blocks, gdim.x * gdim.y * gdim.z, order);
  for (unsigned b : blocks) {
    bidx = {b % gdim.x, b / gdim.x % gdim.y, b / (gdim.x * gdim.y)};
    if (shmem) memset(dyn, 0xFF, shmem);  // poison: NaN in fp32/bf16/fp16
    if (!plain) {
      if (!run_block()) {
        fibers.clear();
        return 1;
      }
      continue;
    }
    static Thread one;
    cur = &one;
    for (unsigned i : places) {
      one.tid = {i % bdim.x, i / bdim.x % bdim.y, i / (bdim.x * bdim.y)}, one.lin = i;
      f(args);
    }
  }
  return 0;
}
}  // namespace cudasim

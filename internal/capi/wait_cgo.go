//go:build cgo

package capi

/*
#include <stdint.h>
#include <stdlib.h>
#ifdef _WIN32
#include <windows.h>
#else
#include <time.h>
#endif

#define WEAK __attribute__((weak))
typedef struct sqlite3 sqlite3;

extern WEAK int sqlite3_busy_handler(sqlite3*, int(*)(void*, int), void*);          // c3ref/busy_handler.html
extern WEAK int sqlite3_busy_timeout(sqlite3*, int);                                // c3ref/busy_timeout.html
extern WEAK void sqlite3_progress_handler(sqlite3*, int, int(*)(void*), void*);     // c3ref/progress_handler.html

typedef struct {
	int32_t stop;     // written from Go, any thread
	int32_t timeout;  // ms
	int64_t start;    // ns, of the wait that is going on
	sqlite3 *db;
} capi_wait;

static int64_t capi_now(void) {
#ifdef _WIN32
	return (int64_t)GetTickCount64() * 1000000;
#else
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
#endif
}

static void capi_sleep(int64_t ns) {
#ifdef _WIN32
	Sleep((DWORD)((ns + 999999) / 1000000));
#else
	struct timespec t = { ns / 1000000000, ns % 1000000000 };
	nanosleep(&t, NULL);
#endif
}

// capi_busy sleeps a sixteenth of what was waited already: a short lock is
// noticed at once, a long one costs a try each 2 ms. SQLite's own sleeps up to
// 100 ms.
static int capi_busy(void *p, int count) {
	capi_wait *w = p;
	if (__atomic_load_n(&w->stop, __ATOMIC_ACQUIRE)) return 0;
	int64_t now = capi_now();
	if (count == 0) w->start = now;
	int64_t waited = now - w->start, left = (int64_t)w->timeout * 1000000 - waited;
	if (left <= 0) return 0;
	int64_t ns = waited / 16;
	if (ns < 100000) ns = 100000;
	if (ns > 2000000) ns = 2000000;
	if (ns > left) ns = left;
	capi_sleep(ns);
	return 1;
}

static int capi_progress(void *p) {
	return __atomic_load_n(&((capi_wait *)p)->stop, __ATOMIC_ACQUIRE) != 0;
}

static void capi_wait_busy(void *p, int ms) {
	capi_wait *w = p;
	w->timeout = ms;
	sqlite3_busy_handler(w->db, capi_busy, w);
}

static void *capi_wait_new(sqlite3 *db, int ms) {
	if (!sqlite3_busy_handler || !sqlite3_busy_timeout || !sqlite3_progress_handler) return NULL;
	capi_wait *w = calloc(1, sizeof *w);
	if (!w) return NULL;
	w->db = db;
	if (ms) capi_wait_busy(w, ms);
	return w;
}

static void capi_wait_default(void *p) {
	capi_wait *w = p;
	sqlite3_busy_timeout(w->db, w->timeout);
}

static void capi_wait_progress(void *p, int on) {
	capi_wait *w = p;
	sqlite3_progress_handler(w->db, 1000, on ? capi_progress : NULL, w);
}

static const char *capi_wait_missing(int i) {
	switch (i) {
	case 0: return sqlite3_busy_handler ? "" : "sqlite3_busy_handler";
	case 1: return sqlite3_busy_timeout ? "" : "sqlite3_busy_timeout";
	case 2: return sqlite3_progress_handler ? "" : "sqlite3_progress_handler";
	}
	return NULL;
}

#cgo noescape capi_wait_new
#cgo nocallback capi_wait_new
#cgo noescape capi_wait_busy
#cgo nocallback capi_wait_busy
#cgo noescape capi_wait_default
#cgo nocallback capi_wait_default
#cgo noescape capi_wait_progress
#cgo nocallback capi_wait_progress
#cgo noescape capi_wait_missing
#cgo nocallback capi_wait_missing
*/
import "C"

import "unsafe"

func newWait(db unsafe.Pointer, ms int) unsafe.Pointer {
	return C.capi_wait_new((*C.sqlite3)(db), C.int(ms))
}

func waitBusy(w unsafe.Pointer, ms int) { C.capi_wait_busy(w, C.int(ms)) }

func waitDefault(w unsafe.Pointer) { C.capi_wait_default(w) }

func waitProgress(w unsafe.Pointer, on bool) {
	var n C.int
	if on {
		n = 1
	}
	C.capi_wait_progress(w, n)
}

func waitFree(w unsafe.Pointer) { C.free(w) }

func waitMissing() []string {
	return absent(func(i C.int) *C.char { return C.capi_wait_missing(i) })
}

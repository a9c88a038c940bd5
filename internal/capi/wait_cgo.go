//go:build cgo

package capi

/*
#include "wait_queue.h"

#define WEAK __attribute__((weak))

#define CAPI_LONG ((int64_t)100 * 1000000) // ns, LongWaitAfter

extern WEAK int sqlite3_busy_handler(sqlite3*, int(*)(void*, int), void*);          // c3ref/busy_handler.html
extern WEAK int sqlite3_busy_timeout(sqlite3*, int);                                // c3ref/busy_timeout.html
extern WEAK void sqlite3_progress_handler(sqlite3*, int, int(*)(void*), void*);     // c3ref/progress_handler.html

extern void leakguardLongWait(void *); // longwait_cgo.go

static void capi_note(capi_wait *w, int64_t waited) {
	int64_t ms = waited / 1000000;
	__atomic_store_n(&w->took, (int32_t)(ms < INT32_MAX ? ms : INT32_MAX), __ATOMIC_RELAXED);
}

static int capi_busy(void *p, int count) {
	capi_wait *w = p;
	if (__atomic_load_n(&w->stop, __ATOMIC_ACQUIRE)) return 0;
	int64_t now = capi_now();
	if (count == 0) {
		w->start = now;
		w->told = 0;
	}
	int64_t waited = now - w->start, left = (int64_t)w->timeout * 1000000 - waited;
	if (left <= 0) return 0;
	int64_t becomes = CAPI_LONG - waited;
	if (!w->told && becomes <= 0) { // and try at once: telling takes time
		w->told = 1;
		leakguardLongWait(w);
		capi_note(w, capi_now() - w->start);
		return 1;
	}
	if (!w->told && becomes < left) left = becomes;
	int again = capi_sleep(w, count == 0, now, waited, left);
	// Whether the next try succeeds nobody tells.
	if (w->told) capi_note(w, capi_now() - w->start);
	return again;
}

static int capi_progress(void *p) {
	return __atomic_load_n(&((capi_wait *)p)->stop, __ATOMIC_ACQUIRE) != 0;
}

static void capi_wait_busy(void *p, sqlite3 *db, int ms) {
	capi_wait *w = p;
	w->timeout = ms;
	w->busy = 1;
	sqlite3_busy_handler(db, capi_busy, w);
}

static void *capi_wait_new(sqlite3 *db, uint64_t device, uint64_t inode, int ms) {
	if (!sqlite3_busy_handler || !sqlite3_busy_timeout || !sqlite3_progress_handler) return NULL;
	capi_wait *w = calloc(1, sizeof *w);
	if (!w) return NULL;
	w->device = device;
	w->inode = inode;
	if (ms) capi_wait_busy(w, db, ms);
	return w;
}

static void capi_wait_free(void *p) {
	capi_leave_queue(p);
	free(p);
}

static void *capi_wait_counts(void) { return &capi_waiting; }

static void capi_wait_default(void *p, sqlite3 *db) {
	capi_wait *w = p;
	w->busy = 0;
	sqlite3_busy_timeout(db, w->timeout);
}

static void capi_wait_progress(void *p, sqlite3 *db, int on) {
	capi_wait *w = p;
	sqlite3_progress_handler(db, 1000, on ? capi_progress : NULL, w);
}

static void capi_wait_retire(void *p, sqlite3 *db) {
	if (((capi_wait *)p)->busy) capi_wait_default(p, db);
	capi_wait_progress(p, db, 0);
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
#cgo noescape capi_wait_up
#cgo nocallback capi_wait_up
#cgo noescape capi_wait_free
#cgo nocallback capi_wait_free
#cgo noescape capi_wait_next
#cgo nocallback capi_wait_next
#cgo noescape capi_wait_retire
#cgo nocallback capi_wait_retire
#cgo noescape capi_wait_missing
#cgo nocallback capi_wait_missing
*/
import "C"

import "unsafe"

// waiting are the counts of capi_waiting.
var waiting = (*[2]int32)(C.capi_wait_counts())

func newWait(db unsafe.Pointer, file FileID, ms int) unsafe.Pointer {
	return C.capi_wait_new((*C.sqlite3)(db), C.uint64_t(file.Device), C.uint64_t(file.Inode), C.int(ms))
}

func waitNext(w unsafe.Pointer) { C.capi_wait_next(w) }

func waitUp(w unsafe.Pointer) { C.capi_wait_up(w) }

func waitBusy(w, db unsafe.Pointer, ms int) { C.capi_wait_busy(w, (*C.sqlite3)(db), C.int(ms)) }

func waitDefault(w, db unsafe.Pointer) { C.capi_wait_default(w, (*C.sqlite3)(db)) }

func waitProgress(w, db unsafe.Pointer, on bool) {
	var n C.int
	if on {
		n = 1
	}
	C.capi_wait_progress(w, (*C.sqlite3)(db), n)
}

func waitRetire(w, db unsafe.Pointer) { C.capi_wait_retire(w, (*C.sqlite3)(db)) }

func waitFree(w unsafe.Pointer) { C.capi_wait_free(w) }

func waitMissing() []string {
	return absent(func(i C.int) *C.char { return C.capi_wait_missing(i) })
}

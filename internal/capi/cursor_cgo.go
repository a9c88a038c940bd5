//go:build cgo

package capi

/*
#include <stdint.h>
#include <string.h>
#include <time.h>

#define WEAK __attribute__((weak))
typedef struct sqlite3 sqlite3;
typedef struct sqlite3_stmt sqlite3_stmt;
typedef struct sqlite3_mutex sqlite3_mutex;
typedef struct sqlite3_value sqlite3_value;
typedef void (*capi_destructor)(void*);

extern WEAK sqlite3 *sqlite3_db_handle(sqlite3_stmt*);                      // c3ref/db_handle.html
extern WEAK sqlite3_mutex *sqlite3_db_mutex(sqlite3*);                      // c3ref/db_mutex.html
extern WEAK void sqlite3_mutex_enter(sqlite3_mutex*);                       // c3ref/mutex_alloc.html
extern WEAK void sqlite3_mutex_leave(sqlite3_mutex*);                       // c3ref/mutex_alloc.html
extern WEAK int sqlite3_step(sqlite3_stmt*);                                // c3ref/step.html
extern WEAK int sqlite3_reset(sqlite3_stmt*);                               // c3ref/reset.html
extern WEAK int sqlite3_clear_bindings(sqlite3_stmt*);                      // c3ref/clear_bindings.html
extern WEAK int sqlite3_extended_errcode(sqlite3*);                         // c3ref/errcode.html
extern WEAK int sqlite3_bind_null(sqlite3_stmt*, int);                      // c3ref/bind_blob.html
extern WEAK int sqlite3_bind_int64(sqlite3_stmt*, int, long long);
extern WEAK int sqlite3_bind_double(sqlite3_stmt*, int, double);
extern WEAK int sqlite3_bind_text64(sqlite3_stmt*, int, const char*, unsigned long long, capi_destructor, unsigned char);
extern WEAK int sqlite3_bind_blob64(sqlite3_stmt*, int, const void*, unsigned long long, capi_destructor);
extern WEAK int sqlite3_column_count(sqlite3_stmt*);                        // c3ref/column_count.html
extern WEAK sqlite3_value *sqlite3_column_value(sqlite3_stmt*, int);        // c3ref/column_blob.html
extern WEAK const char *sqlite3_column_name(sqlite3_stmt*, int);            // c3ref/column_name.html
extern WEAK const char *sqlite3_column_decltype(sqlite3_stmt*, int);        // c3ref/column_decltype.html
extern WEAK int sqlite3_value_type(sqlite3_value*);                         // c3ref/value_blob.html
extern WEAK long long sqlite3_value_int64(sqlite3_value*);
extern WEAK double sqlite3_value_double(sqlite3_value*);
extern WEAK const unsigned char *sqlite3_value_text(sqlite3_value*);
extern WEAK const void *sqlite3_value_blob(sqlite3_value*);
extern WEAK int sqlite3_value_bytes(sqlite3_value*);
extern WEAK long long sqlite3_last_insert_rowid(sqlite3*);                  // c3ref/last_insert_rowid.html
extern WEAK int sqlite3_changes(sqlite3*);                                  // c3ref/changes.html
extern WEAK int sqlite3_stmt_status(sqlite3_stmt*, int, int);               // c3ref/stmt_status.html
extern WEAK int sqlite3_compileoption_used(const char*);                    // c3ref/compileoption_get.html

// capi_cursor_missing is capi_missing for what a Cursor needs.
static const char *capi_cursor_missing(int i) {
	#define FN(f) { #f, (void (*)(void))f }
	static const struct { const char *name; void (*fn)(void); } fns[] = {
		FN(sqlite3_db_handle), FN(sqlite3_db_mutex), FN(sqlite3_mutex_enter), FN(sqlite3_mutex_leave),
		FN(sqlite3_step), FN(sqlite3_reset), FN(sqlite3_clear_bindings), FN(sqlite3_extended_errcode),
		FN(sqlite3_bind_null), FN(sqlite3_bind_int64), FN(sqlite3_bind_double), FN(sqlite3_bind_text64),
		FN(sqlite3_bind_blob64), FN(sqlite3_column_count), FN(sqlite3_column_value), FN(sqlite3_column_name),
		FN(sqlite3_column_decltype), FN(sqlite3_value_type), FN(sqlite3_value_int64), FN(sqlite3_value_double),
		FN(sqlite3_value_text), FN(sqlite3_value_blob), FN(sqlite3_value_bytes), FN(sqlite3_last_insert_rowid),
		FN(sqlite3_changes), FN(sqlite3_stmt_status),
	};
	#undef FN
	if (i >= (int)(sizeof fns / sizeof fns[0])) return NULL;
	return fns[i].fn ? "" : fns[i].name;
}

// capi_waits_for_caches says that go-sqlite3 may be built to wait for those who share
// a cache, which an ATTACH can bring: it has to step by itself then.
static int capi_waits_for_caches(void) {
	return sqlite3_compileoption_used && sqlite3_compileoption_used("ENABLE_UNLOCK_NOTIFY");
}

// These two mirror Go's, which aligns 64 bits to 4 bytes on 32-bit machines.
#define MIRROR __attribute__((packed, aligned(4)))
typedef struct MIRROR { int64_t num; uint64_t at; int32_t kind, n; } capi_value;
typedef struct MIRROR { uint64_t stmt; int64_t row_id, changes, at; int32_t columns, reprepares; } capi_call;

#define STMT(address) ((sqlite3_stmt *)(uintptr_t)(address))

enum { ROW = 100, DONE = 101, INTEGER = 1, FLOAT = 2, TEXT = 3, BLOB = 4, UTF8 = 1, REPREPARES = 5 };

// capi_enter takes the connection's mutex, which is recursive: the calls below it
// then find it taken by themselves, without an atomic instruction. A connection
// without mutexes has none.
static sqlite3_mutex *capi_enter(sqlite3 *db) {
	sqlite3_mutex *m = sqlite3_db_mutex(db);
	if (m) sqlite3_mutex_enter(m);
	return m;
}

static void capi_leave(sqlite3_mutex *m) {
	if (m) sqlite3_mutex_leave(m);
}

// capi_bind begins a run. Bytes are copied unless they are bound for one call only.
static int capi_bind(sqlite3_stmt *s, const capi_value *args, int n, const char *bytes, capi_destructor how) {
	int rc = sqlite3_reset(s);
	if (rc) return rc;
	sqlite3_clear_bindings(s);
	for (int i = 0; i < n; i++) {
		const capi_value *a = &args[i];
		const char *p = a->n ? bytes + a->num : ""; // NULL would bind NULL
		double d;
		switch (a->kind) {
		case INTEGER: rc = sqlite3_bind_int64(s, i + 1, a->num); break;
		case FLOAT:   memcpy(&d, &a->num, sizeof d); rc = sqlite3_bind_double(s, i + 1, d); break;
		case TEXT:    rc = sqlite3_bind_text64(s, i + 1, p, a->n, how, UTF8); break;
		case BLOB:    rc = sqlite3_bind_blob64(s, i + 1, p, a->n, how); break;
		default:      rc = sqlite3_bind_null(s, i + 1); break;
		}
		if (rc) return rc;
	}
	return 0;
}

// capi_row reads the columns. The mutex is held, which is what protects a value
// that sqlite3_column_value returns, see c3ref/value.html.
static void capi_row(sqlite3_stmt *s, capi_value *row, int n) {
	for (int i = 0; i < n; i++) {
		sqlite3_value *v = sqlite3_column_value(s, i);
		double d;
		row[i].at = 0;
		row[i].n = 0;
		switch (row[i].kind = sqlite3_value_type(v)) {
		case INTEGER:
			row[i].num = sqlite3_value_int64(v);
			break;
		case FLOAT:
			d = sqlite3_value_double(v);
			memcpy(&row[i].num, &d, sizeof d);
			break;
		case TEXT: // in this order: converting changes the length
			row[i].at = (uint64_t)(uintptr_t)sqlite3_value_text(v);
			row[i].n = sqlite3_value_bytes(v);
			break;
		case BLOB:
			row[i].at = (uint64_t)(uintptr_t)sqlite3_value_blob(v);
			row[i].n = sqlite3_value_bytes(v);
			break;
		}
	}
}

// capi_monotonic and capi_coarse are one clock; the second lags behind by up to a
// tick of the system.
#ifdef CLOCK_MONOTONIC_COARSE
static int64_t capi_clock(clockid_t id) {
	struct timespec t;
	return clock_gettime(id, &t) ? 0 : (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
static int64_t capi_monotonic(void) {
	struct timespec tick;
	if (clock_getres(CLOCK_MONOTONIC_COARSE, &tick) || tick.tv_sec || tick.tv_nsec > 10000000) return 0;
	return capi_clock(CLOCK_MONOTONIC);
}
static int64_t capi_coarse(void) { return capi_clock(CLOCK_MONOTONIC_COARSE); }
#else
static int64_t capi_monotonic(void) { return 0; }
static int64_t capi_coarse(void) { return 0; }
#endif

static int capi_failed(sqlite3 *db, int rc) {
	int extended = sqlite3_extended_errcode(db);
	return (extended & 0xff) == (rc & 0xff) ? extended : rc;
}

static int capi_cursor_exec(uintptr_t call, uintptr_t args, int n, uintptr_t bytes) {
	capi_call *c = (capi_call *)call;
	sqlite3_stmt *s = STMT(c->stmt);
	sqlite3 *db = sqlite3_db_handle(s);
	sqlite3_mutex *m = capi_enter(db);
	int rc = capi_bind(s, (const capi_value *)args, n, (const char *)bytes, (capi_destructor)0);
	if (rc) {
		rc = -1;
	} else {
		rc = sqlite3_step(s);
		c->row_id = sqlite3_last_insert_rowid(db);
		c->changes = sqlite3_changes(db);
		if (rc != DONE && rc != ROW) rc = capi_failed(db, rc);
	}
	if (bytes) sqlite3_clear_bindings(s); // they are Go's
	capi_leave(m);
	return rc;
}

static int capi_cursor_run(uintptr_t call, int timed) {
	capi_call *c = (capi_call *)call;
	sqlite3_stmt *s = STMT(c->stmt);
	sqlite3 *db = sqlite3_db_handle(s);
	sqlite3_mutex *m = capi_enter(db);
	int rc = sqlite3_step(s);
	if (rc == ROW || rc == DONE) rc = sqlite3_reset(s);
	if (rc) rc = capi_failed(db, rc);
	if (timed) c->at = capi_coarse();
	capi_leave(m);
	return rc;
}

static int capi_cursor_query(uintptr_t call, uintptr_t args, int n, uintptr_t bytes, uintptr_t row, int room) {
	capi_call *c = (capi_call *)call;
	sqlite3_stmt *s = STMT(c->stmt);
	sqlite3 *db = sqlite3_db_handle(s);
	sqlite3_mutex *m = capi_enter(db);
	int rc = capi_bind(s, (const capi_value *)args, n, (const char *)bytes, (capi_destructor)-1);
	if (rc) {
		rc = -1;
	} else {
		rc = sqlite3_step(s);
		c->columns = sqlite3_column_count(s);
		c->reprepares = sqlite3_stmt_status(s, REPREPARES, 0);
		if (rc == ROW) {
			if (c->columns <= room) capi_row(s, (capi_value *)row, c->columns);
		} else if (rc != DONE) {
			rc = capi_failed(db, rc);
		}
		c->at = capi_coarse();
	}
	capi_leave(m);
	return rc;
}

static void capi_cursor_row(uintptr_t call, uintptr_t row) {
	capi_call *c = (capi_call *)call;
	sqlite3_stmt *s = STMT(c->stmt);
	sqlite3_mutex *m = capi_enter(sqlite3_db_handle(s));
	capi_row(s, (capi_value *)row, c->columns);
	capi_leave(m);
}

static int capi_cursor_step(uint64_t stmt, uintptr_t row, int n) {
	sqlite3_stmt *s = STMT(stmt);
	sqlite3 *db = sqlite3_db_handle(s);
	sqlite3_mutex *m = capi_enter(db);
	int rc = sqlite3_step(s);
	if (rc == ROW) capi_row(s, (capi_value *)row, n);
	else if (rc != DONE) rc = capi_failed(db, rc);
	capi_leave(m);
	return rc;
}

static int capi_cursor_reset(uint64_t stmt) {
	sqlite3_stmt *s = STMT(stmt);
	int rc = sqlite3_reset(s);
	return rc ? capi_failed(sqlite3_db_handle(s), rc) : 0;
}

static const char *capi_cursor_name(uint64_t stmt, int i) {
	return sqlite3_column_name(STMT(stmt), i);
}

static const char *capi_cursor_type(uint64_t stmt, int i) {
	return sqlite3_column_decltype(STMT(stmt), i);
}

#cgo noescape capi_cursor_missing
#cgo nocallback capi_cursor_missing
#cgo noescape capi_waits_for_caches
#cgo nocallback capi_waits_for_caches
#cgo noescape capi_monotonic
#cgo nocallback capi_monotonic
#cgo noescape capi_cursor_row
#cgo nocallback capi_cursor_row
#cgo noescape capi_cursor_name
#cgo nocallback capi_cursor_name
#cgo noescape capi_cursor_type
#cgo nocallback capi_cursor_type
*/
import "C"

import (
	"runtime"
	"sync"
	"unsafe"
)

// The sizes must agree; a difference does not compile.
var (
	_ [unsafe.Sizeof(Value{})]byte = [C.sizeof_capi_value]byte{}
	_ [unsafe.Sizeof(call{})]byte  = [C.sizeof_capi_call]byte{}
)

// C gets addresses as numbers: what they lead to has no Go pointers in it, so
// there is nothing for cgo to check, and it is kept alive until the call is over.

func addressOf[T any](p *T) C.uintptr_t { return C.uintptr_t(uintptr(unsafe.Pointer(p))) }

func (a *Args) addresses() (values C.uintptr_t, n C.int, bytes C.uintptr_t) {
	if a == nil {
		return 0, 0, 0
	}
	values = addressOf(unsafe.SliceData(a.values))
	if len(a.bytes) > 0 {
		bytes = addressOf(unsafe.SliceData(a.bytes))
	}
	return values, C.int(len(a.values)), bytes
}

func (c *Cursor) exec(a *Args) int {
	values, n, bytes := a.addresses()
	code := C.capi_cursor_exec(addressOf(&c.call), values, n, bytes)
	runtime.KeepAlive(c)
	runtime.KeepAlive(a)
	return int(code)
}

func (c *Cursor) runOnce(timed bool) int {
	clock := C.int(0)
	if timed {
		clock = 1
	}
	code := C.capi_cursor_run(addressOf(&c.call), clock)
	runtime.KeepAlive(c)
	return int(code)
}

// Query runs the statement to its first row or its end, as Exec does, and reads
// the row. fresh says that names and types of the columns may differ from those of
// the last Query: SQLite has compiled the statement again since, for a schema that
// changed, or this is the first.
//
// https://www.sqlite.org/c3ref/c_stmtstatus_counter.html
func (c *Cursor) Query(args *Args) (code int, fresh bool) {
	values, n, bytes := args.addresses()
	code = int(C.capi_cursor_query(addressOf(&c.call), values, n, bytes, addressOf(unsafe.SliceData(c.row)), C.int(cap(c.row))))
	runtime.KeepAlive(c)
	runtime.KeepAlive(args)
	if !c.known || c.reprepares != c.call.reprep || len(c.row) != int(c.call.columns) {
		c.renew(code)
		return code, true
	}
	return code, false
}

func (c *Cursor) readRow() {
	C.capi_cursor_row(addressOf(&c.call), addressOf(unsafe.SliceData(c.row)))
	runtime.KeepAlive(c)
}

func (c *Cursor) step() int {
	code := C.capi_cursor_step(C.uint64_t(c.call.stmt), addressOf(unsafe.SliceData(c.row)), C.int(len(c.row)))
	runtime.KeepAlive(c)
	return int(code)
}

func (c *Cursor) reset() int { return int(C.capi_cursor_reset(C.uint64_t(c.call.stmt))) }

func (c *Cursor) columnName(i int) string {
	return C.GoString(C.capi_cursor_name(C.uint64_t(c.call.stmt), C.int(i)))
}

func (c *Cursor) columnType(i int) string {
	return C.GoString(C.capi_cursor_type(C.uint64_t(c.call.stmt), C.int(i)))
}

func monotonic() (int64, bool) {
	ns := int64(C.capi_monotonic())
	return ns, ns != 0
}

// canRun reports whether the binary has all that a Cursor needs, and nothing that
// it lacks.
var canRun = sync.OnceValue(func() bool { return len(cursorMissing()) == 0 && C.capi_waits_for_caches() == 0 })

func cursorMissing() []string {
	return absent(func(i C.int) *C.char { return C.capi_cursor_missing(i) })
}

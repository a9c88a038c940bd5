//go:build cgo

package capi

/*
#include <stdlib.h>
#include <string.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

// SQLite's header is not included: it would have to be the one of the copy that
// go-sqlite3 links, which cannot be named from here. These declarations are part
// of SQLite's stable ABI. Weak means: NULL when the binary does not have it. (On
// macOS the linker rejects a binary without SQLite instead.)
// Each page is under https://www.sqlite.org/.

#define WEAK __attribute__((weak))

typedef struct sqlite3 sqlite3;
typedef struct sqlite3_stmt sqlite3_stmt;
typedef struct sqlite3_mutex sqlite3_mutex;

extern WEAK void sqlite3_interrupt(sqlite3*);             // c3ref/interrupt.html
extern WEAK int sqlite3_get_autocommit(sqlite3*);         // c3ref/get_autocommit.html
extern WEAK const char *sqlite3_db_filename(sqlite3*, const char*); // c3ref/db_filename.html
extern WEAK int sqlite3_txn_state(sqlite3*, const char*); // c3ref/txn_state.html
extern WEAK sqlite3_stmt *sqlite3_next_stmt(sqlite3*, sqlite3_stmt*); // c3ref/next_stmt.html
extern WEAK int sqlite3_stmt_busy(sqlite3_stmt*);         // c3ref/stmt_busy.html
extern WEAK const char *sqlite3_sql(sqlite3_stmt*);       // c3ref/expanded_sql.html
extern WEAK int sqlite3_db_status(sqlite3*, int, int*, int*, int);    // c3ref/db_status.html
extern WEAK long long sqlite3_memory_used(void);          // c3ref/memory_highwater.html
extern WEAK int sqlite3_db_release_memory(sqlite3*);      // c3ref/db_release_memory.html
extern WEAK sqlite3_mutex *sqlite3_db_mutex(sqlite3*);    // c3ref/db_mutex.html
extern WEAK void sqlite3_mutex_enter(sqlite3_mutex*);     // c3ref/mutex_alloc.html
extern WEAK int sqlite3_mutex_try(sqlite3_mutex*);        // c3ref/mutex_alloc.html
extern WEAK void sqlite3_mutex_leave(sqlite3_mutex*);     // c3ref/mutex_alloc.html
extern WEAK int sqlite3_column_count(sqlite3_stmt*);      // c3ref/column_count.html
extern WEAK int sqlite3_reset(sqlite3_stmt*);             // c3ref/reset.html
extern WEAK int sqlite3_step(sqlite3_stmt*);              // c3ref/step.html
extern WEAK sqlite3 *sqlite3_db_handle(sqlite3_stmt*);    // c3ref/db_handle.html
extern WEAK int sqlite3_extended_errcode(sqlite3*);       // c3ref/errcode.html
extern WEAK int sqlite3_stmt_readonly(sqlite3_stmt*);     // c3ref/stmt_readonly.html
extern WEAK int sqlite3_prepare_v2(sqlite3*, const char*, int, sqlite3_stmt**, const char**); // c3ref/prepare.html
extern WEAK int sqlite3_bind_parameter_count(sqlite3_stmt*); // c3ref/bind_parameter_count.html
extern WEAK int sqlite3_finalize(sqlite3_stmt*);          // c3ref/finalize.html

// capi_missing returns the name of function i if it is missing, "" if it is
// there, NULL after the last one.
static const char *capi_missing(int i) {
	#define FN(f) { #f, (void (*)(void))f }
	static const struct { const char *name; void (*fn)(void); } fns[] = {
		FN(sqlite3_interrupt), FN(sqlite3_get_autocommit), FN(sqlite3_db_filename), FN(sqlite3_txn_state),
		FN(sqlite3_next_stmt), FN(sqlite3_stmt_busy), FN(sqlite3_sql),
		FN(sqlite3_db_status), FN(sqlite3_memory_used), FN(sqlite3_db_release_memory), FN(sqlite3_db_mutex),
		FN(sqlite3_mutex_enter), FN(sqlite3_mutex_try), FN(sqlite3_mutex_leave), FN(sqlite3_column_count),
		FN(sqlite3_reset), FN(sqlite3_step), FN(sqlite3_db_handle), FN(sqlite3_extended_errcode),
		FN(sqlite3_stmt_readonly), FN(sqlite3_prepare_v2),
		FN(sqlite3_bind_parameter_count), FN(sqlite3_finalize),
	};
	#undef FN
	if (i >= (int)(sizeof fns / sizeof fns[0])) return NULL;
	return fns[i].fn ? "" : fns[i].name;
}

// capi_lock keeps other threads from finalizing a statement while a walk stands
// on it: sqlite3_next_stmt holds the mutex only for its own one step. NULL, and no
// lock, for a connection or an SQLite without mutexes.
static sqlite3_mutex *capi_lock(sqlite3 *db) {
	if (!sqlite3_db_mutex || !sqlite3_mutex_enter || !sqlite3_mutex_leave) return NULL;
	sqlite3_mutex *m = sqlite3_db_mutex(db);
	if (m) sqlite3_mutex_enter(m);
	return m;
}

static void capi_unlock(sqlite3_mutex *m) {
	if (m) sqlite3_mutex_leave(m);
}

// capi_try_lock is capi_lock if nobody else is inside; it returns 0 if somebody is,
// and where that cannot be told.
static int capi_try_lock(sqlite3 *db, sqlite3_mutex **m) {
	if (!sqlite3_db_mutex || !sqlite3_mutex_try || !sqlite3_mutex_leave) return 0;
	*m = sqlite3_db_mutex(db);
	return !*m || sqlite3_mutex_try(*m) == 0;
}

static void capi_interrupt(sqlite3 *db) {
	if (sqlite3_interrupt) sqlite3_interrupt(db);
}

static int capi_autocommit(sqlite3 *db) {
	return sqlite3_get_autocommit ? sqlite3_get_autocommit(db) != 0 : -1;
}

typedef struct { int ok; const char *path; } capi_path;

static capi_path capi_filename(sqlite3 *db) {
	capi_path f = {0, NULL};
	if (sqlite3_db_filename) {
		f.ok = 1;
		f.path = sqlite3_db_filename(db, "main");
	}
	return f;
}

static int capi_txn_state(sqlite3 *db) {
	return sqlite3_txn_state ? sqlite3_txn_state(db, NULL) : -1;
}

typedef struct { int ok, open, busy; } capi_counts;

static capi_counts capi_open_statements(sqlite3 *db) {
	capi_counts c = {0, 0, 0};
	if (!sqlite3_next_stmt || !sqlite3_stmt_busy) return c;
	c.ok = 1;
	sqlite3_mutex *m = capi_lock(db);
	for (sqlite3_stmt *s = sqlite3_next_stmt(db, NULL); s; s = sqlite3_next_stmt(db, s)) {
		c.open++;
		if (sqlite3_stmt_busy(s)) c.busy++;
	}
	capi_unlock(m);
	return c;
}

typedef struct { int ok; char *sql; } capi_text;

// capi_busy_sql copies the text before it gives up the mutex, for it belongs to
// the statement. The caller frees it.
static capi_text capi_busy_sql(sqlite3 *db) {
	capi_text t = {0, NULL};
	if (!sqlite3_next_stmt || !sqlite3_stmt_busy || !sqlite3_sql) return t;
	t.ok = 1;
	sqlite3_mutex *m = capi_lock(db);
	sqlite3_stmt *s = sqlite3_next_stmt(db, NULL);
	while (s && !sqlite3_stmt_busy(s)) s = sqlite3_next_stmt(db, s);
	const char *sql = s ? sqlite3_sql(s) : NULL;
	if (sql) {
		t.sql = strdup(sql);
		t.ok = t.sql != NULL;
	}
	capi_unlock(m);
	return t;
}

// capi_try_memory adds up SQLITE_DBSTATUS_CACHE_USED or _CACHE_USED_SHARED,
// _SCHEMA_USED and _STMT_USED.
static long long capi_try_memory(sqlite3 *db, int shared) {
	const int what[] = {shared ? 11 : 1, 2, 3};
	long long sum = 0;
	sqlite3_mutex *m;
	if (!sqlite3_db_status || !capi_try_lock(db, &m)) return -1;
	for (int i = 0; i < 3 && sum >= 0; i++) {
		int now = 0, high = 0;
		if (sqlite3_db_status(db, what[i], &now, &high, 0)) sum = -1;
		else sum += now;
	}
	capi_unlock(m);
	return sum;
}

static long long capi_memory_used(void) {
	return sqlite3_memory_used ? sqlite3_memory_used() : -1;
}

static int capi_try_release_memory(sqlite3 *db) {
	sqlite3_mutex *m;
	if (!sqlite3_db_release_memory || !capi_try_lock(db, &m)) return 0;
	sqlite3_db_release_memory(db);
	capi_unlock(m);
	return 1;
}

// capi_trim has glibc give back what is free: without it nearly all that SQLite
// frees stays with the process. Others either do so by themselves or cannot.
// https://man7.org/linux/man-pages/man3/malloc_trim.3.html
static int capi_trim(void) {
#ifdef __GLIBC__
	return malloc_trim(0);
#else
	return 0;
#endif
}

static int capi_columns(sqlite3_stmt *s) {
	return sqlite3_column_count ? sqlite3_column_count(s) : 0;
}

static int capi_reset(sqlite3_stmt *s) {
	int rc = sqlite3_reset ? sqlite3_reset(s) : 0;
	if (rc && sqlite3_db_handle && sqlite3_extended_errcode)
		rc = sqlite3_extended_errcode(sqlite3_db_handle(s));
	return rc;
}

static int capi_readonly(sqlite3_stmt *s) {
	return sqlite3_stmt_readonly ? sqlite3_stmt_readonly(s) != 0 : -1;
}

typedef struct { int ok, end, params; } capi_end;

// capi_statement_end subtracts the tail here because it may point into Go memory.
static capi_end capi_statement_end(sqlite3 *db, const char *sql, int n) {
	capi_end e = {0, 0, 0};
	sqlite3_stmt *s = NULL;
	const char *tail = NULL;
	if (!sqlite3_prepare_v2 || !sqlite3_bind_parameter_count || !sqlite3_finalize) return e;
	if (sqlite3_prepare_v2(db, sql, n, &s, &tail) == 0 && tail > sql) {
		e.ok = 1;
		e.end = (int)(tail - sql);
		e.params = s ? sqlite3_bind_parameter_count(s) : 0;
	}
	sqlite3_finalize(s);
	return e;
}

// What cannot call back into Go is marked so. Not marked: capi_reset, which may
// commit and so run a Go hook, and capi_statement_end, which may run a Go
// authorizer or virtual table.

#cgo noescape capi_interrupt
#cgo nocallback capi_interrupt
#cgo noescape capi_autocommit
#cgo nocallback capi_autocommit
#cgo noescape capi_filename
#cgo nocallback capi_filename
#cgo noescape capi_txn_state
#cgo nocallback capi_txn_state
#cgo noescape capi_open_statements
#cgo nocallback capi_open_statements
#cgo noescape capi_busy_sql
#cgo nocallback capi_busy_sql
#cgo noescape capi_try_memory
#cgo nocallback capi_try_memory
#cgo noescape capi_try_release_memory
#cgo nocallback capi_try_release_memory
#cgo noescape capi_trim
#cgo nocallback capi_trim
#cgo noescape capi_columns
#cgo nocallback capi_columns
#cgo noescape capi_readonly
#cgo nocallback capi_readonly
#cgo noescape capi_missing
#cgo nocallback capi_missing
*/
import "C"

import (
	"math"
	"slices"
	"unsafe"
)

func interrupt(db unsafe.Pointer) { C.capi_interrupt((*C.sqlite3)(db)) }

func autocommit(db unsafe.Pointer) (on, ok bool) {
	n := C.capi_autocommit((*C.sqlite3)(db))
	return n > 0, n >= 0
}

func filename(db unsafe.Pointer) (path string, ok bool) {
	f := C.capi_filename((*C.sqlite3)(db))
	return C.GoString(f.path), f.ok != 0
}

// SQLite's SQLITE_TXN_NONE, _READ and _WRITE are 0, 1 and 2.
func txnState(db unsafe.Pointer) (TxnState, bool) {
	switch C.capi_txn_state((*C.sqlite3)(db)) {
	case 0:
		return TxnNone, true
	case 1:
		return TxnRead, true
	case 2:
		return TxnWrite, true
	}
	return TxnNone, false
}

func openStatements(db unsafe.Pointer) (open, busy int, ok bool) {
	c := C.capi_open_statements((*C.sqlite3)(db))
	return int(c.open), int(c.busy), c.ok != 0
}

func busySQL(db unsafe.Pointer) (string, bool) {
	t := C.capi_busy_sql((*C.sqlite3)(db))
	if t.sql == nil {
		return "", t.ok != 0
	}
	defer C.free(unsafe.Pointer(t.sql))
	return C.GoString(t.sql), true
}

func tryMemory(db unsafe.Pointer, shared bool) (int64, bool) {
	var flag C.int
	if shared {
		flag = 1
	}
	n := int64(C.capi_try_memory((*C.sqlite3)(db), flag))
	return max(n, 0), n >= 0
}

func memoryUsed() (int64, bool) {
	n := int64(C.capi_memory_used())
	return max(n, 0), n >= 0
}

func tryReleaseMemory(db unsafe.Pointer) bool {
	return C.capi_try_release_memory((*C.sqlite3)(db)) != 0
}

func trim() { C.capi_trim() }

func columns(stmt unsafe.Pointer) int { return int(C.capi_columns((*C.sqlite3_stmt)(stmt))) }

func reset(stmt unsafe.Pointer) int { return int(C.capi_reset((*C.sqlite3_stmt)(stmt))) }

func stmtReadOnly(stmt unsafe.Pointer) (readOnly, ok bool) {
	n := C.capi_readonly((*C.sqlite3_stmt)(stmt))
	return n > 0, n >= 0
}

// statementEnd passes the string's own bytes: they hold no pointers, SQLite takes
// their length and so needs no NUL, and keeps nothing of them once finalized.
func statementEnd(db unsafe.Pointer, sql string) (end, params int, ok bool) {
	if len(sql) > math.MaxInt32 {
		return 0, 0, false
	}
	e := C.capi_statement_end((*C.sqlite3)(db), (*C.char)(unsafe.Pointer(unsafe.StringData(sql))), C.int(len(sql)))
	return int(e.end), int(e.params), e.ok != 0
}

// absent collects the names that list, which is capi_missing or one like it, says
// are missing.
func absent(list func(C.int) *C.char) (names []string) {
	for i := C.int(0); ; i++ {
		name := list(i)
		if name == nil {
			return names
		}
		if s := C.GoString(name); s != "" {
			names = append(names, s)
		}
	}
}

func missing() []string {
	names := absent(func(i C.int) *C.char { return C.capi_missing(i) })
	names = slices.Concat(names, waitMissing(), cursorMissing(), identityMissing(), databasesMissing())
	slices.Sort(names)
	return slices.Compact(names)
}

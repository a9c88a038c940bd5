//go:build cgo

package capi

/*
#include <stdlib.h>

#define WEAK __attribute__((weak))
typedef struct sqlite3 sqlite3;
typedef struct sqlite3_stmt sqlite3_stmt;
typedef struct sqlite3_mutex sqlite3_mutex;

extern WEAK const char *sqlite3_db_name(sqlite3*, int);                // c3ref/db_name.html
extern WEAK const char *sqlite3_db_filename(sqlite3*, const char*);    // c3ref/db_filename.html
extern WEAK int sqlite3_txn_state(sqlite3*, const char*);              // c3ref/txn_state.html
extern WEAK int sqlite3_file_control(sqlite3*, const char*, int, void*); // c3ref/file_control.html
extern WEAK int sqlite3_extended_errcode(sqlite3*);                    // c3ref/errcode.html
extern WEAK sqlite3_mutex *sqlite3_db_mutex(sqlite3*);                 // c3ref/db_mutex.html
extern WEAK int sqlite3_mutex_try(sqlite3_mutex*);                     // c3ref/mutex_alloc.html
extern WEAK void sqlite3_mutex_enter(sqlite3_mutex*);                  // c3ref/mutex_alloc.html
extern WEAK void sqlite3_mutex_leave(sqlite3_mutex*);                  // c3ref/mutex_alloc.html
extern WEAK int sqlite3_prepare_v2(sqlite3*, const char*, int, sqlite3_stmt**, const char**); // c3ref/prepare.html
extern WEAK int sqlite3_step(sqlite3_stmt*);                           // c3ref/step.html
extern WEAK long long sqlite3_column_int64(sqlite3_stmt*, int);        // c3ref/column_blob.html
extern WEAK int sqlite3_finalize(sqlite3_stmt*);                       // c3ref/finalize.html
extern WEAK char *sqlite3_mprintf(const char*, ...);                   // c3ref/mprintf.html
extern WEAK void sqlite3_free(void*);                                  // c3ref/free.html

static const char *capi_databases_missing(int i) {
	#define FN(f) { #f, (void (*)(void))f }
	static const struct { const char *name; void (*fn)(void); } fns[] = {
		FN(sqlite3_db_name), FN(sqlite3_db_filename), FN(sqlite3_txn_state), FN(sqlite3_file_control),
		FN(sqlite3_extended_errcode), FN(sqlite3_db_mutex), FN(sqlite3_mutex_try), FN(sqlite3_mutex_leave),
		FN(sqlite3_prepare_v2), FN(sqlite3_step), FN(sqlite3_column_int64), FN(sqlite3_finalize),
		FN(sqlite3_mprintf), FN(sqlite3_free),
	};
	#undef FN
	if (i >= (int)(sizeof fns / sizeof fns[0])) return NULL;
	return fns[i].fn ? "" : fns[i].name;
}

typedef struct { const char *name, *path; } capi_database;

// capi_database_at returns the database of that number: no name behind the last
// one, no path where none is open.
static capi_database capi_database_at(sqlite3 *db, int i) {
	capi_database d = {NULL, NULL};
	if (!sqlite3_db_name || !sqlite3_db_filename) return d;
	d.name = sqlite3_db_name(db, i);
	if (d.name) d.path = sqlite3_db_filename(db, d.name);
	return d;
}

// capi_try enters the connection's mutex if nobody else is inside. A connection
// without one is nobody's else: see Missing's "What blocks".
static int capi_try(sqlite3 *db, sqlite3_mutex **m) {
	if (!sqlite3_db_mutex || !sqlite3_mutex_try || !sqlite3_mutex_leave) return 0;
	*m = sqlite3_db_mutex(db);
	return !*m || sqlite3_mutex_try(*m) == 0;
}

// capi_enter enters the connection's mutex, and returns NULL if there is none.
static sqlite3_mutex *capi_enter(sqlite3 *db) {
	if (!sqlite3_db_mutex || !sqlite3_mutex_enter || !sqlite3_mutex_leave) return NULL;
	sqlite3_mutex *m = sqlite3_db_mutex(db);
	if (m) sqlite3_mutex_enter(m);
	return m;
}

static void capi_left(sqlite3_mutex *m) {
	if (m) sqlite3_mutex_leave(m);
}

static int capi_try_txn_state(sqlite3 *db, const char *schema) {
	sqlite3_mutex *m;
	if (!sqlite3_txn_state || !capi_try(db, &m)) return -1;
	int state = sqlite3_txn_state(db, schema);
	capi_left(m);
	return state;
}

// capi_try_lock_state returns SQLITE_LOCK_NONE (0) to _EXCLUSIVE (4), -1 if it is not
// known, or a transaction is open.
static int capi_try_lock_state(sqlite3 *db, const char *schema) {
	sqlite3_mutex *m;
	int level = -1;
	if (!sqlite3_txn_state || !sqlite3_file_control || !capi_try(db, &m)) return -1;
	if (sqlite3_txn_state(db, schema) || sqlite3_file_control(db, schema, 1, &level)) level = -1; // SQLITE_FCNTL_LOCKSTATE
	capi_left(m);
	return level;
}

typedef struct { int ok; unsigned version; } capi_version;

static capi_version capi_data_version(sqlite3 *db, const char *schema) {
	capi_version v = {0, 0};
	v.ok = sqlite3_file_control && sqlite3_file_control(db, schema, 35, &v.version) == 0; // SQLITE_FCNTL_DATA_VERSION
	return v;
}

static int capi_last_error(sqlite3 *db) {
	return sqlite3_extended_errcode ? sqlite3_extended_errcode(db) : 0;
}

// capi_pragma reads a PRAGMA that returns a number; 0 if it cannot be read.
static int capi_pragma(sqlite3 *db, const char *format, const char *schema, long long *n) {
	sqlite3_stmt *s = NULL;
	char *sql = sqlite3_mprintf(format, schema);
	int ok = sql && sqlite3_prepare_v2(db, sql, -1, &s, NULL) == 0 && sqlite3_step(s) == 100; // SQLITE_ROW
	if (ok) *n = sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	sqlite3_free(sql);
	return ok;
}

// capi_try_cache_size adds the cache sizes up; -1 if one is not known, 0 if all are
// the default. A negative one is KiB, a positive one is pages, and SQLite keeps some
// 300 bytes beside each.
static long long capi_try_cache_size(sqlite3 *db) {
	sqlite3_mutex *m;
	long long sum = 0;
	int set = 0;
	if (!sqlite3_prepare_v2 || !sqlite3_step || !sqlite3_column_int64 || !sqlite3_finalize || !sqlite3_mprintf ||
		!sqlite3_free || !sqlite3_db_name || !sqlite3_db_filename || !capi_try(db, &m)) return -1;
	for (int i = 0; sum >= 0; i++) {
		const char *name = sqlite3_db_name(db, i);
		long long size, page;
		if (!name) break;
		if (!sqlite3_db_filename(db, name)) continue; // a temp that nobody has used: asking would open it
		if (!capi_pragma(db, "PRAGMA \"%w\".cache_size", name, &size)) sum = -1;
		if (sum < 0) break;
		if (size != -2000) set = 1;
		if (size < 0) sum += -size * 1024;
		else if (!capi_pragma(db, "PRAGMA \"%w\".page_size", name, &page)) sum = -1;
		else sum += size * (page + 300);
	}
	capi_left(m);
	return set || sum < 0 ? sum : 0;
}

// Not marked so: capi_try_cache_size, which may ask a Go authorizer.

#cgo noescape capi_databases_missing
#cgo nocallback capi_databases_missing
#cgo noescape capi_database_at
#cgo nocallback capi_database_at
#cgo noescape capi_enter
#cgo nocallback capi_enter
#cgo noescape capi_left
#cgo nocallback capi_left
#cgo noescape capi_try_txn_state
#cgo nocallback capi_try_txn_state
#cgo noescape capi_try_lock_state
#cgo nocallback capi_try_lock_state
#cgo noescape capi_data_version
#cgo nocallback capi_data_version
#cgo noescape capi_last_error
#cgo nocallback capi_last_error
*/
import "C"

import (
	"runtime"
	"unsafe"
)

func databases(db unsafe.Pointer) (all []Database, ok bool) {
	runtime.LockOSThread() // whose the mutex is
	defer runtime.UnlockOSThread()
	mutex := C.capi_enter((*C.sqlite3)(db))
	defer C.capi_left(mutex)
	for i := C.int(0); ; i++ {
		d := C.capi_database_at((*C.sqlite3)(db), i)
		if d.name == nil {
			return all, len(all) > 0
		}
		if d.path != nil {
			all = append(all, Database{C.GoString(d.name), C.GoString(d.path)})
		}
	}
}

// cName returns the schema's name for C, NULL for "".
func cName(schema string) *C.char {
	if schema == "" {
		return nil
	}
	return C.CString(schema)
}

func tryLockState(db unsafe.Pointer, schema string) int {
	name := cName(schema)
	defer C.free(unsafe.Pointer(name))
	return int(C.capi_try_lock_state((*C.sqlite3)(db), name))
}

func tryTxnState(db unsafe.Pointer, schema string) (TxnState, bool) {
	name := cName(schema)
	defer C.free(unsafe.Pointer(name))
	switch C.capi_try_txn_state((*C.sqlite3)(db), name) {
	case 0:
		return TxnNone, true
	case 1:
		return TxnRead, true
	case 2:
		return TxnWrite, true
	}
	return TxnNone, false
}

func dataVersion(db unsafe.Pointer, schema string) (uint32, bool) {
	name := cName(schema)
	defer C.free(unsafe.Pointer(name))
	v := C.capi_data_version((*C.sqlite3)(db), name)
	return uint32(v.version), v.ok != 0
}

func lastError(db unsafe.Pointer) int { return int(C.capi_last_error((*C.sqlite3)(db))) }

func tryCacheSize(db unsafe.Pointer) (int64, bool) {
	n := int64(C.capi_try_cache_size((*C.sqlite3)(db)))
	return max(n, 0), n >= 0
}

func databasesMissing() []string {
	return absent(func(i C.int) *C.char { return C.capi_databases_missing(i) })
}

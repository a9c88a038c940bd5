//go:build cgo

package capi

/*
#include <stdlib.h>
#include <string.h>

#define WEAK __attribute__((weak))
typedef struct sqlite3 sqlite3;

extern WEAK long long sqlite3_last_insert_rowid(sqlite3*);           // c3ref/last_insert_rowid.html
extern WEAK long long sqlite3_changes64(sqlite3*);                   // c3ref/changes.html
extern WEAK long long sqlite3_total_changes64(sqlite3*);             // c3ref/total_changes.html
extern WEAK int sqlite3_db_readonly(sqlite3*, const char*);          // c3ref/db_readonly.html
extern WEAK const char *sqlite3_db_filename(sqlite3*, const char*);  // c3ref/db_filename.html
extern WEAK int sqlite3_open_v2(const char*, sqlite3**, int, const char*); // c3ref/open.html
extern WEAK int sqlite3_close(sqlite3*);                             // c3ref/close.html

typedef struct { int ok; long long rowid, changes, total; } capi_history;

static capi_history capi_history_of(sqlite3 *db) {
	capi_history h = {0, 0, 0, 0};
	if (!sqlite3_last_insert_rowid || !sqlite3_changes64 || !sqlite3_total_changes64) return h;
	h.ok = 1;
	h.rowid = sqlite3_last_insert_rowid(db);
	h.changes = sqlite3_changes64(db);
	h.total = sqlite3_total_changes64(db);
	return h;
}

static int capi_readonly_main(sqlite3 *db) {
	return sqlite3_db_readonly ? sqlite3_db_readonly(db, "main") : -1;
}

// capi_reopens returns the path, to be freed, or NULL.
static char *capi_reopens(const char *name, int readonly) {
	if (!sqlite3_open_v2 || !sqlite3_close || !sqlite3_db_filename || !sqlite3_db_readonly) return NULL;
	sqlite3 *db = NULL;
	char *path = NULL;
	int flags = (readonly ? 1 : 2) | 0x8000; // SQLITE_OPEN_READONLY or _READWRITE, _NOMUTEX
	if (sqlite3_open_v2(name, &db, flags, NULL) == 0 && sqlite3_db_readonly(db, "main") == readonly) {
		const char *p = sqlite3_db_filename(db, "main");
		if (p) path = strdup(p);
	}
	sqlite3_close(db); // also after a failure
	return path;
}

static const char *capi_identity_missing(int i) {
	switch (i) {
	case 0: return sqlite3_last_insert_rowid ? "" : "sqlite3_last_insert_rowid";
	case 1: return sqlite3_changes64 ? "" : "sqlite3_changes64";
	case 2: return sqlite3_total_changes64 ? "" : "sqlite3_total_changes64";
	case 3: return sqlite3_db_readonly ? "" : "sqlite3_db_readonly";
	case 4: return sqlite3_open_v2 ? "" : "sqlite3_open_v2";
	case 5: return sqlite3_close ? "" : "sqlite3_close";
	}
	return NULL;
}

// Not marked: capi_reopens, for an automatic extension may be the program's Go code.

#cgo noescape capi_history_of
#cgo nocallback capi_history_of
#cgo noescape capi_readonly_main
#cgo nocallback capi_readonly_main
#cgo noescape capi_identity_missing
#cgo nocallback capi_identity_missing
*/
import "C"

import "unsafe"

func history(db unsafe.Pointer) (History, bool) {
	h := C.capi_history_of((*C.sqlite3)(db))
	return History{int64(h.rowid), int64(h.changes), int64(h.total)}, h.ok != 0
}

func readOnlyMain(db unsafe.Pointer) (readOnly, ok bool) {
	n := C.capi_readonly_main((*C.sqlite3)(db))
	return n > 0, n >= 0
}

func reopens(name string, readOnly bool) (path string, ok bool) {
	n := C.CString(name)
	defer C.free(unsafe.Pointer(n))
	var flag C.int
	if readOnly {
		flag = 1
	}
	p := C.capi_reopens(n, flag)
	if p == nil {
		return "", false
	}
	defer C.free(unsafe.Pointer(p))
	return C.GoString(p), true
}

func identityMissing() []string {
	return absent(func(i C.int) *C.char { return C.capi_identity_missing(i) })
}

//go:build cgo

package capi

import (
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// field is an unexported field of one of the driver's structs, of a kind. Where it
// lies is found out once for each type: there is one, unless a program links a fork
// of the driver as well.
type field struct {
	owner, name string
	kind        reflect.Kind
	last        atomic.Pointer[place]
}

// place is what is known of a type: the field's offset, and its own type, nil if
// there is no such field.
type place struct {
	owner  reflect.Type
	offset uintptr
	is     reflect.Type
}

var (
	connDB  = field{owner: "SQLiteConn", name: "db", kind: reflect.Pointer}
	connMu  = field{owner: "SQLiteConn", name: "mu", kind: reflect.Struct}
	connLoc = field{owner: "SQLiteConn", name: "loc", kind: reflect.Pointer}
	stmtS   = field{owner: "SQLiteStmt", name: "s", kind: reflect.Pointer}
	rowsS   = field{owner: "SQLiteRows", name: "s", kind: reflect.Pointer}
)

// of returns the address of the field in v, and its type; nil if v is anything but
// a pointer to the driver's struct.
func (f *field) of(v any) (at *unsafe.Pointer, is reflect.Type) {
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return nil, nil
	}
	k := f.last.Load()
	if t := p.Type().Elem(); k == nil || k.owner != t {
		k = f.find(t)
		f.last.Store(k)
	}
	if k.is == nil {
		return nil, nil
	}
	return (*unsafe.Pointer)(unsafe.Add(p.UnsafePointer(), k.offset)), k.is
}

func (f *field) find(t reflect.Type) *place {
	k := &place{owner: t}
	// The end of the path, to accept a fork of the driver as well.
	if t.Kind() != reflect.Struct || t.Name() != f.owner || !strings.HasSuffix(t.PkgPath(), "/go-sqlite3") {
		return k
	}
	if found, ok := t.FieldByName(f.name); ok && found.Type.Kind() == f.kind {
		k.offset, k.is = found.Offset, found.Type
	}
	return k
}

// read returns the pointer, nil if there is none.
func (f *field) read(v any) unsafe.Pointer {
	if at, _ := f.of(v); at != nil {
		return *at
	}
	return nil
}

func connOf(conn any) Conn {
	db, _ := connDB.of(conn)
	if db == nil {
		return Conn{}
	}
	c := Conn{db: db}
	if mu, is := connMu.of(conn); is == reflect.TypeFor[sync.Mutex]() {
		c.mu = (*sync.Mutex)(unsafe.Pointer(mu))
	}
	return c
}

func handleOfStmt(stmt any) unsafe.Pointer { return stmtS.read(stmt) }

func location(conn any) (loc *time.Location, ok bool) {
	at, is := connLoc.of(conn)
	if at == nil || is != reflect.TypeFor[*time.Location]() {
		return nil, false
	}
	return (*time.Location)(*at), true
}

func setStmt(rows, stmt any) bool {
	at, is := rowsS.of(rows)
	if at == nil || is != reflect.TypeOf(stmt) {
		return false
	}
	*at = reflect.ValueOf(stmt).UnsafePointer()
	return true
}

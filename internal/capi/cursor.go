package capi

// Cursor runs a prepared statement: binding, the step and the columns of the row
// are one call of C, under one lock of the connection's mutex. The driver takes a
// call and a lock for each argument and each column.
//
// It needs the statement and does not own it. Like the statement it is for one
// goroutine at a time. It must not be copied once it was used, and it must be in
// the heap: C is given its address, and writes there while Go functions that SQL
// calls may move a goroutine's stack.
//
// The calls that step or reset may run the busy handler and Go functions. Codes are SQLite's extended ones, see
// https://www.sqlite.org/rescode.html.
type Cursor struct {
	_    noCopy
	call call
	// row has room for the columns. Values point into the statement's memory and
	// hold until its next step or reset.
	row []Value
	few [4]Value // row, if it has room
	// known: reprepares is what the last Query saw.
	known      bool
	reprepares int32
}

// noCopy has go vet find copies.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// call is what a call of C reads and writes. It mirrors capi_call, and has no
// pointer in Go's eyes: none of it is Go's to collect. Addresses have 64 bits so
// that the layout is one on all machines.
type call struct {
	stmt    uint64
	rowID   int64
	changes int64
	at      int64
	columns int32
	reprep  int32
}

// Result codes that callers tell apart.
const (
	OK      = 0
	Row     = 100
	Done    = 101
	Unbound = -1 // the arguments could not be bound, and nothing ran
)

// NewCursor returns a cursor for the statement, nil if SQLite or cgo is not there.
func NewCursor(s Stmt) *Cursor {
	c := new(Cursor)
	if !c.Init(s) {
		return nil
	}
	return c
}

// Init makes c a cursor for the statement, for one that is part of something else. It
// returns false, and c is of no use, if SQLite or cgo is not there.
func (c *Cursor) Init(s Stmt) bool {
	if s.p == nil || !canRun() {
		return false
	}
	c.call.stmt = uint64(uintptr(s.p))
	c.row = c.few[:0]
	return true
}

// Exec runs the statement once to its first row or its end: Row, Done, Unbound or
// an error. After an error it is not reset, so that the driver finds the message.
// It is for statements without columns. Texts and blobs are bound where they lie,
// and no longer when it returns.
func (c *Cursor) Exec(args *Args) (code int) { return c.exec(args) }

// Run runs a statement without parameters and rows, such as BEGIN, and resets it:
// OK or an error. After an error it is not reset, so that the driver's Close returns
// that with its message. timed: At is to tell when that was.
//
// https://www.sqlite.org/c3ref/step.html
func (c *Cursor) Run(timed bool) (code int) { return c.runOnce(timed) }

// At is when the last Query or timed Run that ran was over, in nanoseconds on the clock
// of [Monotonic] and up to 10 ms early; 0 if it is not known. Reading that clock costs
// next to nothing where a precise one costs more than a call of C.
//
// https://man7.org/linux/man-pages/man2/clock_gettime.2.html
func (c *Cursor) At() int64 { return c.call.at }

// Monotonic reads the system's monotonic clock, which [Cursor.At] reads with less
// precision; ok is false where that cannot be done.
func Monotonic() (ns int64, ok bool) { return monotonic() }

// RowID and Changes are what SQLite tells behind an Exec.
//
// https://www.sqlite.org/c3ref/last_insert_rowid.html
// https://www.sqlite.org/c3ref/changes.html
func (c *Cursor) RowID() int64   { return c.call.rowID }
func (c *Cursor) Changes() int64 { return c.call.changes }

// renew follows a Query whose columns may be others than before.
func (c *Cursor) renew(code int) {
	c.known, c.reprepares = true, c.call.reprep
	n := int(c.call.columns)
	if n > cap(c.row) {
		c.row = make([]Value, n)
		if code == Row {
			c.readRow()
		}
	}
	c.row = c.row[:n]
}

// Step goes on to the next row and reads it: Row, Done or an error.
func (c *Cursor) Step() (code int) { return c.step() }

// Row is the row that Query or Step read.
func (c *Cursor) Row() []Value { return c.row }

// Reset ends the run. It returns OK, or the error of a commit that failed.
func (c *Cursor) Reset() (code int) { return c.reset() }

// Name returns the name of column i, Type its declared type as written, empty for
// an expression.
//
// https://www.sqlite.org/c3ref/column_name.html
// https://www.sqlite.org/c3ref/column_decltype.html
func (c *Cursor) Name(i int) string { return c.columnName(i) }

// Type: see Name.
func (c *Cursor) Type(i int) string { return c.columnType(i) }

// Kind is a value's fundamental type, https://www.sqlite.org/c3ref/c_blob.html.
type Kind int32

// The numbers are SQLite's.
const (
	Integer Kind = 1
	Float   Kind = 2
	Text    Kind = 3
	Blob    Kind = 4
	Null    Kind = 5
)

// Value is an argument or a column. It mirrors capi_value.
type Value struct {
	num  int64  // the integer, the bits of the float, or where an argument's bytes begin
	at   uint64 // where a column's bytes are
	kind Kind
	n    int32 // their number
}

// Args are the arguments of a run, by position. They are used again and again. Like
// a Cursor they must not be copied once they were used, and must be in the heap: an
// Exec binds bytes where they lie.
type Args struct {
	_      noCopy
	values []Value
	bytes  []byte
	few    [4]Value // values, as long as they have room
	short  [64]byte // bytes, too
}

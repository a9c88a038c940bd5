package capi

import (
	"math"
	"time"
	"unsafe"
)

// Clear takes all arguments away.
func (a *Args) Clear() {
	if a.values == nil {
		a.values, a.bytes = a.few[:0], a.short[:0]
		return
	}
	a.values, a.bytes = a.values[:0], a.bytes[:0]
}

// Size is how many bytes texts and blobs have together.
func (a *Args) Size() int { return len(a.bytes) }

// Null adds NULL.
func (a *Args) Null() { a.values = append(a.values, Value{kind: Null}) }

// Int adds an integer.
func (a *Args) Int(i int64) { a.values = append(a.values, Value{kind: Integer, num: i}) }

// Float adds a floating point number. SQLite makes NULL of NaN.
func (a *Args) Float(f float64) {
	a.values = append(a.values, Value{kind: Float, num: int64(math.Float64bits(f))})
}

// Text adds a text.
func (a *Args) Text(s string) {
	at := len(a.bytes)
	a.bytes = append(a.bytes, s...)
	a.add(Text, at)
}

// Blob adds a blob.
func (a *Args) Blob(b []byte) {
	at := len(a.bytes)
	a.bytes = append(a.bytes, b...)
	a.add(Blob, at)
}

// Time adds a time as a text in the layout.
func (a *Args) Time(t time.Time, layout string) {
	at := len(a.bytes)
	a.bytes = t.AppendFormat(a.bytes, layout)
	a.add(Text, at)
}

func (a *Args) add(kind Kind, at int) {
	a.values = append(a.values, Value{kind: kind, num: int64(at), n: int32(len(a.bytes) - at)})
}

// Kind returns the value's type.
func (v *Value) Kind() Kind { return v.kind }

// Int returns an Integer.
func (v *Value) Int() int64 { return v.num }

// Float returns a Float.
func (v *Value) Float() float64 { return math.Float64frombits(uint64(v.num)) }

// Text returns a copy of a Text.
func (v *Value) Text() string { return string(v.raw()) }

// Blob returns a copy of a Blob, not nil.
func (v *Value) Blob() []byte { return append([]byte{}, v.raw()...) }

// raw is SQLite's memory.
func (v *Value) raw() []byte {
	if v.at == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(nil), uintptr(v.at))), v.n) // in C's memory
}

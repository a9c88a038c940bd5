// Package db has what many programs have around database/sql.
package db

// DB takes a lease, as database/sql does, and lets a test look at its call stack.
type DB struct {
	Lease  interface{ CheckOut(exempt string) }
	Opened func()
}

// Query is the helper that all of the program goes through.
func (d *DB) Query(text string) {
	d.Lease.CheckOut("") // query
	d.Opened()
}

// QueryAll goes through Query.
func (d *DB) QueryAll(text string) { d.Query(text) } // query all

// Get is generic.
func Get[T any](d *DB, key T) {
	d.Lease.CheckOut("") // get
	d.Opened()
}

// InTx runs f in a transaction, which it begins in a closure.
func (d *DB) InTx(f func()) {
	retry(func() {
		d.Lease.CheckOut("") // in tx
		d.Opened()
		f()
	})
}

func retry(f func()) { f() }

// Walk calls itself.
func (d *DB) Walk(depth int) {
	if depth > 0 {
		d.Walk(depth - 1)
		return
	}
	d.Lease.CheckOut("") // walk
	d.Opened()
}

// Rare is called by few.
func (d *DB) Rare() {
	d.Lease.CheckOut("") // rare
	d.Opened()
}

// Named is called by few as well, and named by a test.
func (d *DB) Named() {
	d.Lease.CheckOut("") // named
	d.Opened()
}

// Package store is the program's own: many functions that go through package db.
package store

import "github.com/sqlite-leakguard/sqlite-leakguard/tracker/testdata/app/db"

// Store has a method for each thing to do.
type Store struct{ DB *db.DB }

// Each returns them all: what each calls is on its one line.
func (s *Store) Each() map[string]func() {
	return map[string]func(){
		"Orders": s.Orders,
		"Users":  s.Users,
		"Items":  s.Items,
		"Carts":  s.Carts,
		"Bills":  s.Bills,
		"Taxes":  s.Taxes,
		"Mails":  s.Mails,
		"Clubs":  s.Clubs,
		"Rooms":  s.Rooms,
	}
}

// Orders calls every helper.
func (s *Store) Orders() {
	s.DB.Query("Orders")                       // Orders query
	s.DB.QueryAll("Orders")                    // Orders query all
	db.Get(s.DB, [1]struct{ Orders int }{})    // Orders get
	s.DB.InTx(func() { s.DB.Query("Orders") }) // Orders in tx
	s.DB.Walk(3)                               // Orders walk
}

// Users calls every helper.
func (s *Store) Users() {
	s.DB.Query("Users")                       // Users query
	s.DB.QueryAll("Users")                    // Users query all
	db.Get(s.DB, [1]struct{ Users int }{})    // Users get
	s.DB.InTx(func() { s.DB.Query("Users") }) // Users in tx
	s.DB.Walk(3)                              // Users walk
}

// Items calls every helper.
func (s *Store) Items() {
	s.DB.Query("Items")                       // Items query
	s.DB.QueryAll("Items")                    // Items query all
	db.Get(s.DB, [1]struct{ Items int }{})    // Items get
	s.DB.InTx(func() { s.DB.Query("Items") }) // Items in tx
	s.DB.Walk(3)                              // Items walk
}

// Carts calls every helper.
func (s *Store) Carts() {
	s.DB.Query("Carts")                       // Carts query
	s.DB.QueryAll("Carts")                    // Carts query all
	db.Get(s.DB, [1]struct{ Carts int }{})    // Carts get
	s.DB.InTx(func() { s.DB.Query("Carts") }) // Carts in tx
	s.DB.Walk(3)                              // Carts walk
}

// Bills calls every helper.
func (s *Store) Bills() {
	s.DB.Query("Bills")                       // Bills query
	s.DB.QueryAll("Bills")                    // Bills query all
	db.Get(s.DB, [1]struct{ Bills int }{})    // Bills get
	s.DB.InTx(func() { s.DB.Query("Bills") }) // Bills in tx
	s.DB.Walk(3)                              // Bills walk
}

// Taxes calls every helper.
func (s *Store) Taxes() {
	s.DB.Query("Taxes")                       // Taxes query
	s.DB.QueryAll("Taxes")                    // Taxes query all
	db.Get(s.DB, [1]struct{ Taxes int }{})    // Taxes get
	s.DB.InTx(func() { s.DB.Query("Taxes") }) // Taxes in tx
	s.DB.Walk(3)                              // Taxes walk
}

// Mails calls every helper.
func (s *Store) Mails() {
	s.DB.Query("Mails")                       // Mails query
	s.DB.QueryAll("Mails")                    // Mails query all
	db.Get(s.DB, [1]struct{ Mails int }{})    // Mails get
	s.DB.InTx(func() { s.DB.Query("Mails") }) // Mails in tx
	s.DB.Walk(3)                              // Mails walk
}

// Clubs calls every helper.
func (s *Store) Clubs() {
	s.DB.Query("Clubs")                       // Clubs query
	s.DB.QueryAll("Clubs")                    // Clubs query all
	db.Get(s.DB, [1]struct{ Clubs int }{})    // Clubs get
	s.DB.InTx(func() { s.DB.Query("Clubs") }) // Clubs in tx
	s.DB.Walk(3)                              // Clubs walk
}

// Rooms calls every helper.
func (s *Store) Rooms() {
	s.DB.Query("Rooms")                       // Rooms query
	s.DB.QueryAll("Rooms")                    // Rooms query all
	db.Get(s.DB, [1]struct{ Rooms int }{})    // Rooms get
	s.DB.InTx(func() { s.DB.Query("Rooms") }) // Rooms in tx
	s.DB.Walk(3)                              // Rooms walk
}

// Many calls what is rare on many lines, and in closures.
func (s *Store) Many() {
	s.DB.Rare()
	s.DB.Rare()
	s.DB.Rare()
	s.DB.Rare()
	for range 2 {
		func() { s.DB.Rare() }()
		func() { s.DB.Rare() }()
		func() { s.DB.Rare() }()
		func() { s.DB.Rare() }()
		func() { s.DB.Rare() }()
		func() { s.DB.Rare() }()
		func() { s.DB.Rare() }()
	}
	s.DB.Named() // many named
}

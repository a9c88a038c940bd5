package main

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
)

// The shop is an ordinary program on database/sql: nothing in this file knows
// the guard.

const schema = `
CREATE TABLE IF NOT EXISTS shop_products (
	id    INTEGER PRIMARY KEY,
	name  TEXT NOT NULL,
	stock INTEGER NOT NULL CHECK (stock >= 0)
);
CREATE TABLE IF NOT EXISTS shop_orders (
	id       INTEGER PRIMARY KEY,
	product  INTEGER NOT NULL REFERENCES shop_products (id),
	quantity INTEGER NOT NULL,
	customer TEXT NOT NULL
);`

const (
	products     = 20
	fullStock    = 1000
	customers    = 4
	perCustomer  = 25
	stockOfAll   = `SELECT sum(stock) FROM shop_products`
	orderedOfAll = `SELECT coalesce(sum(quantity), 0) FROM shop_orders`
)

// openShop creates the tables and fills the shelves, in one transaction.
func openShop(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, schema); err != nil {
		return err
	}
	fill, err := tx.PrepareContext(ctx, `INSERT OR REPLACE INTO shop_products (id, name, stock) VALUES (?, ?, ?)`)
	if err != nil {
		return err
	}
	defer fill.Close()
	if _, err := tx.ExecContext(ctx, `DELETE FROM shop_orders`); err != nil {
		return err
	}
	for id := range products {
		if _, err := fill.ExecContext(ctx, id+1, fmt.Sprintf("product %d", id+1), fullStock); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// trade lets some customers buy at the same time and returns the number of
// orders that the shop took.
func trade(ctx context.Context, db *sql.DB) (orders int, err error) {
	take, err := db.PrepareContext(ctx, `UPDATE shop_products SET stock = stock - ? WHERE id = ?`)
	if err != nil {
		return 0, err
	}
	defer take.Close()
	order, err := db.PrepareContext(ctx, `INSERT INTO shop_orders (product, quantity, customer) VALUES (?, ?, ?) RETURNING id`)
	if err != nil {
		return 0, err
	}
	defer order.Close()

	var wg sync.WaitGroup
	errs := make([]error, customers)
	for c := range customers {
		wg.Go(func() { errs[c] = buy(ctx, db, take, order, c) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	return countOrders(ctx, db)
}

// buy is one customer.
func buy(ctx context.Context, db *sql.DB, take, order *sql.Stmt, customer int) error {
	for n := range perCustomer {
		product, quantity := (customer*7+n)%products+1, n%3+1
		if err := buyOne(ctx, db, take, order, product, quantity, fmt.Sprint("customer ", customer)); err != nil {
			return err
		}
	}
	return nil
}

func buyOne(ctx context.Context, db *sql.DB, take, order *sql.Stmt, product, quantity int, customer string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.StmtContext(ctx, take).ExecContext(ctx, quantity, product); err != nil {
		return err
	}
	var id int64
	if err := tx.StmtContext(ctx, order).QueryRowContext(ctx, product, quantity, customer).Scan(&id); err != nil {
		return err
	}
	return tx.Commit()
}

// countOrders also checks that what was sold is missing on the shelves.
func countOrders(ctx context.Context, db *sql.DB) (int, error) {
	rows, err := db.QueryContext(ctx, `SELECT customer, quantity FROM shop_orders ORDER BY id`)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var orders, sold int
	for rows.Next() {
		var customer string
		var quantity int
		if err := rows.Scan(&customer, &quantity); err != nil {
			return 0, err
		}
		orders++
		sold += quantity
	}
	if err := rows.Err(); err != nil {
		return 0, err
	}
	var stock int
	if err := db.QueryRowContext(ctx, stockOfAll).Scan(&stock); err != nil {
		return 0, err
	}
	if stock+sold != products*fullStock {
		return 0, fmt.Errorf("%d in stock and %d sold make %d, not %d", stock, sold, stock+sold, products*fullStock)
	}
	return orders, nil
}

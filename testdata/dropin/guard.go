package main

import _ "github.com/sqlite-leakguard/sqlite-leakguard"

module github.com/microvm-runtime/microvm-runtime/go

go 1.21

package main

import "testing"

// TestCapacity checks that what all may take together is not more than there is, on machines of every size.
func TestCapacity(t *testing.T) {
	for _, files := range []int{256, 512, 1024, 2048, 4096, 20000, 1 << 20} {
		for _, memory := range []int64{512 << 20, 1 << 30, 8 << 30, 1 << 40} {
			c := capacity{memory, files}
			l, p := c.clients(256), c.peers()
			taken := l.Conns + p.MaxNew + p.MaxCalls + p.MaxRaft + readerFiles*c.readers(256)
			if left := files - taken; left < min(files/8, 512) {
				t.Errorf("%+v: %d of %d descriptors are left: %+v %+v", c, left, files, l, p)
			}
			bytes := int64(l.Conns)*(48<<10) + l.Bodies + c.calls() + c.readMemory() + c.queued()
			if bytes > memory*3/4 {
				t.Errorf("%+v: %d of %d bytes are taken", c, bytes, memory)
			}
			if l.Conns < 16 || l.Bodies < 64<<20 {
				t.Errorf("%+v: clients may have %+v", c, l)
			}
		}
	}
	if c := measure(); c.memory < 1<<20 || c.files < 64 {
		t.Errorf("measure() = %+v", c)
	}
}

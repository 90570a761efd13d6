package main

func Example() {
	main()
	// Output:
	// # declare a service: cmdb.Dir("site/") does the same from a folder
	// 9 objects to create
	//
	// # an execution takes a device in Shenzhen and puts it into service
	// d1 in_service for "shop.cart"
	// d2 idle for ""
	// d3 idle for ""
	//
	// # a new version: look before it is applied
	// plan 6a492cb4d42255f4: 0 to create, 1 to update, 0 to delete, 0 unchanged
	//
	// ~ module shop.cart
	//     ~ packages[cart].version: "1.4" -> "1.5"
	//
	// touches 1 module (shop.cart), 1 device (d1), 1 site (sz-1), 1 caller (shop.web)
	//
	// # what would break a relation is refused
	// device d3: site "sh-1" would name no site any more; keep the site, or change this first
	//
	// # who did what to d1
	// 1 create by ann, because: "open the shop"
	// 2 acquire by exec-1, because: ""
	// 3 serve by flow, because: "expand shop.cart"
}

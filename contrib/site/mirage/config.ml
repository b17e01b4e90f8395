(* MirageOS 4.11. What is chosen here is chosen by `mirage configure`; ../Makefile runs it. *)
open Mirage

let tls =
  let doc = Key.Arg.info ~doc:"Serve HTTPS; HTTP only leads there." [ "tls" ] in
  Key.(create "tls" Arg.(flag doc))

(* ADDR, MASK and GWS, of the environment, are compiled in as what --ipv4= and --ipv4-gateway= are
   where they are not given at the start. Whoever gives them gives --no-dhcp as well: with DHCP
   MirageOS looks at neither. *)
let from_environment name =
  match Sys.getenv_opt name with
  | None | Some "" -> None
  | Some text -> Some (Ipaddr.V4.of_string_exn text)

let ipv4_network =
  match (from_environment "ADDR", from_environment "MASK") with
  | Some address, Some netmask ->
      Some (Ipaddr.V4.Prefix.of_netmask_exn ~netmask ~address)
  | _ -> None

let ipv4_gateway = from_environment "GWS"
let stack = generic_stackv4v6 ?ipv4_network ?ipv4_gateway default_network

(* The pages are part of the image; the certificate is not, and never leaves the host. *)
let pages = crunch "htdocs"
let certificates = tar_kv_ro (block_of_file "certificates")
let packages = [ package "magic-mime" ]

let plain =
  main ~packages "Unikernel.Make" (kv_ro @-> http @-> job)
  $ pages
  $ cohttp_server (conduit_direct stack)

let encrypted =
  main ~packages "Unikernel_tls.Make" (kv_ro @-> kv_ro @-> http @-> job)
  $ pages
  $ certificates
  $ cohttp_server (conduit_direct ~tls:true stack)

let () = register "www" [ if_impl (Key.value tls) encrypted plain ]

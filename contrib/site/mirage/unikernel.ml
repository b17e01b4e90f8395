(* Serves the pages over HTTP. *)
open Lwt.Infix

let http_port =
  let doc = Cmdliner.Arg.info ~doc:"TCP port of HTTP." [ "http-port" ] in
  Mirage_runtime.register_arg Cmdliner.Arg.(value & opt int 80 doc)

module Pages (Store : Mirage_kv.RO) (Server : Cohttp_mirage.Server.S) = struct
  (* A folder's page is its index.html. *)
  let find store key =
    Store.get store key >>= function
    | Ok page -> Lwt.return_some (key, page)
    | Error _ -> (
        let index = Mirage_kv.Key.(key / "index.html") in
        Store.get store index >|= function
        | Ok page -> Some (index, page)
        | Error _ -> None)

  let respond status (key, page) =
    let kind = Magic_mime.lookup (Mirage_kv.Key.basename key) in
    let headers = Cohttp.Header.init_with "content-type" kind in
    Server.respond_string ~status ~headers ~body:page ()

  let answer store uri =
    let path = Uri.pct_decode (Uri.path uri) in
    find store (Mirage_kv.Key.v path) >>= function
    | Some found -> respond `OK found
    | None -> (
        Logs.info (fun log -> log "there is no %S" path);
        find store (Mirage_kv.Key.v "404.html") >>= function
        | Some page -> respond `Not_found page
        | None -> Server.respond_not_found ())

  let server answer =
    let callback _ request _ = answer (Cohttp.Request.uri request) in
    Server.make ~callback ()
end

module Make (Store : Mirage_kv.RO) (Server : Cohttp_mirage.Server.S) = struct
  module Pages = Pages (Store) (Server)

  let start store listen =
    let port = http_port () in
    Logs.info (fun log -> log "HTTP on port %d" port);
    listen (`TCP port) (Pages.server (Pages.answer store))
end

// Names: the tool that the session may not call, under every name that some host takes for it.

// --- another case
return await callTool("VAULT:OPEN", {});

// --- a blank before it
return await callTool(" vault:open", {});

// --- a blank behind it
return await callTool("vault:open ", {});

// --- a line's end behind it
return await callTool("vault:open\n", {});

// --- a NUL behind it
return await callTool("vault:open\0", {});

// --- a NUL within it
return await callTool("vault\0:open", {});

// --- full-width letters
return await callTool("ｖａｕｌｔ:open", {});

// --- a full-width colon
return await callTool("vault：open", {});

// --- a mathematical letter
return await callTool("𝐯ault:open", {});

// --- a no-break space
return await callTool("vault\u00a0:open", {});

// --- a list of the one name
return await callTool(["VAULT:open"], {});

// --- a String object
return await callTool(new String("Vault:open"), {});

// --- by way of tools
return await tools.VAULT.open({});

// --- by way of tools, in one step
return await tools["vault:open\t"]({});

// --- a ligature's neighbour: a letter that becomes two
return await callTool("vault:op\u2000en", {});

// --- the tail of a name that is allowed
await callTool("echo", {});
return await callTool("\0vault:open", {});
